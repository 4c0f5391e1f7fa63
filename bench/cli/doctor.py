"""``bench doctor``: what this machine can run."""

from __future__ import annotations

import sys

import click

from bench.cli.printing import say


@click.command()
def doctor() -> None:
    """What is installed, which device there is, what can run, and how to get what is missing."""
    from bench.machine.doctor import examine

    findings = examine()
    for finding in findings:
        say(f"{'ok  ' if finding.ok else 'MISS'} {finding.what}: {finding.detail}")
    if not all(finding.ok or finding.optional for finding in findings):
        sys.exit(1)
