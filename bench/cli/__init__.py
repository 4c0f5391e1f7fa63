"""The ``bench`` command, a file for each group of commands. Nothing heavy is imported before a command runs."""

from bench.cli.main import main

__all__ = ["main"]
