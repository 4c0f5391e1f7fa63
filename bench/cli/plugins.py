"""``bench list``, ``bench check`` and ``bench new``: what is there, and what is added."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bench import registry
from bench.cli import types
from bench.cli.printing import say
from bench.errors import BenchError


@click.command("list")
@click.argument("kind", required=False)
@click.option("--config", "method", help="Show the settings of a method (a name or a .py file), with their sources.")
def list_(kind: str | None, method: str | None) -> None:
    """Methods, subsets, suites, metrics, corpora, backbones and experiments, with summaries; or all of one KIND.

    \b
        bench list
        bench list methods         # with their papers, needs and costs per step
        bench list --config soar
    """
    from bench.cli import listing  # here: it reads records, which --help has no use for

    if method is not None:
        if kind is not None:
            raise BenchError("--config shows one method's settings, and KIND lists names; leave one of them out")
        from bench import plugins

        method = plugins.named(method)
        cls = plugins.load(method)
        for name, field in cls.Config.model_fields.items():
            tiny = f" (on tiny-sd3: {cls.embedded[name]!r})" if name in cls.embedded else ""
            text = f"{method}.{name} = {field.default!r}{tiny}  {field.description or ''}".rstrip()
            say(listing.folded(text, "    "))
        return
    for line in listing.everything() if kind is None else listing.one(kind):
        say(line)


@click.command()
@click.argument("method")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the method; repeatable.")
def check(method: str, settings: tuple[str, ...]) -> None:
    """Hold METHOD, a name or a .py file, to every promise of docs/check-a-method.md: seconds on a tiny random model.

    \b
        bench check sft
        bench check ./my_method.py --set batch_size=8
    Ends with status 1 if a promise is broken.
    """
    from bench import plugins
    from bench.experiment.config import settings_of

    name = plugins.named(method)
    cls = registry.load("methods", name)
    from bench.check import check_method  # here: a mistyped name needs no torch to be told

    findings = check_method(cls, **settings_of(name, settings))
    for finding in findings:
        say(finding)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@click.group()
def new() -> None:
    """Write a plugin that runs at once, to start from."""


@new.command("method")
@click.argument("name")
@click.option("--out", type=types.FOLDER, help="Folder to write; it must not exist yet; default: ./NAME.")
def new_method(name: str, out: Path | None) -> None:
    """Write a package with the method NAME, its settings, an experiment and tests.

    \b
        bench new method my_method
        bench check my_method/my_method.py
        bench run my_method/experiment.toml
    """
    from bench.scaffold import write_method

    for line in write_method(name, out or Path(name)):
        say(line)
