"""``python -m chassis.cli``."""

from chassis.cli import main

main()
