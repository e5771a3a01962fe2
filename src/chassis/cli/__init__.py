"""The command line: ``chassis run | dev | gateway | check | doctor``."""

from chassis.cli._main import main

__all__ = ["main"]
