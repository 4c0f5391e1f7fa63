"""How a command prints."""

from __future__ import annotations

import click

from bench.errors import shown


def say(text: object) -> None:
    """Print a line, or several; control characters in a file's name are shown and not obeyed."""
    click.echo(shown(str(text), keep="\n\t"))
