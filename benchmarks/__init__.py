"""Benchmarks: `nox -s bench`, or `python -m benchmarks.<name>`; see README.md beside this file."""
