"""The commands are found where they lie: each file's in the one group, and the group as a module."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator

import click

from bench import cli


def below(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from below(command)


def test_every_command_of_every_file_can_be_called() -> None:
    files = [module.name for module in pkgutil.iter_modules(cli.__path__) if module.name != "__main__"]
    modules = [importlib.import_module(f"bench.cli.{name}") for name in files]
    written = {each.name for module in modules for each in vars(module).values() if isinstance(each, click.Command)}
    reached = {command.name for command in below(cli.main)}
    assert {"run", "evaluate", "report", "list", "method", "fetch"} <= written
    assert written - {cli.main.name} == reached


def test_the_commands_run_as_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "bench.cli", "list", "suites"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("  embedded ") and "\n  drawbench " in done.stdout
