"""``bench rehearse``: the real steps of an experiment's jobs on a pretended GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bench.cli import options, types
from bench.cli.printing import say
from bench.errors import BenchError
from bench.machine.bounds import MOST_GPUS


@click.command()
@click.argument("experiment", type=types.PATH, required=False)
@click.option("--methods", callback=types.names, help="Names or .py files with commas between; default: EXPERIMENT's.")
@click.option("--subset", "subsets", callback=types.names, help="Subsets with commas between.")
@options.backbone
@click.option("--suite", help="Evaluation suite, whose pictures are drawn.")
@options.model
@options.computing
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="A setting; repeatable.")
@click.option("--processes", type=click.IntRange(1, MOST_GPUS), default=1, show_default=True, help="One per GPU.")
@click.option("--memory", metavar="SIZE", help="Also tell the largest micro-batches that fit, e.g. 24GiB.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every place in the code.")
@options.cache
def rehearse(
    experiment: Path | None,
    settings: tuple[str, ...],
    processes: int,
    memory: str | None,
    as_json: bool,
    cache: Path,
    **flags: Any,
) -> None:
    """Let every method take its steps on a pretended GPU: what memory they need, where they wait, what they mix up.

    Needs no GPU and no weights: --backbone may be a folder of configurations alone. Nothing is trained or written but
    what was found, which a dry run then shows. Linux, and a build of torch for CUDA.

    \b
        bench rehearse paper_main --processes 8
        bench rehearse paper_dynamics_aesthetic --memory 24GiB
        bench rehearse --methods ./my_method.py --backbone stabilityai/stable-diffusion-3.5-medium --micro-batch 4
    """
    from bench.experiment.config import read_experiment
    from bench.experiment.toml import parse_size
    from bench.rehearsal.ask import Grid, rehearsed
    from bench.rehearsal.results import Rehearsal, setting_of
    from bench.rehearsal.show import document, show

    room = None if memory is None else parse_size(memory)
    config = read_experiment(experiment, flags, settings)

    def report(rehearsal: Rehearsal) -> None:
        if not as_json and not rehearsal.short:
            click.echo(f"{rehearsal.stage}: rehearsed in {rehearsal.seconds:.0f} s", err=True)

    grid: Grid = "all" if room is not None else ""
    done = rehearsed(config, setting_of(config, processes), cache, grid=grid, report=report)
    if as_json:
        say(json.dumps(document(config.run_name, done, room), indent=1))
    else:
        show(config.run_name, done, room)
    if problems := [f"{each.stage} ends at {each.problem}" for each in done if each.problem and not each.short]:
        raise BenchError(f"{len(problems)} of the stages could not be rehearsed to their end:", problems)
