"""``bench run``: train, evaluate and draw the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bench.cli import options, types
from bench.cli.printing import say
from bench.errors import BenchError, shortened


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise BenchError(f"--seeds takes whole numbers with commas between, not {shortened(value, 80)!r}") from error


@click.command()
@click.argument("experiment", type=types.PATH, required=False)
@click.option(
    "--methods", callback=types.names, help="Names or .py files with commas between, e.g. sft,./my_method.py."
)
@click.option("--subset", "subsets", callback=types.names, help="Subsets with commas between, e.g. high_aesthetic.")
@click.option("--seeds", callback=_numbers, help="Seeds with commas between.")
@click.option("--budget", help="Per job: flops=1e13, updates=200, steps=200 or device-seconds=60.")
@click.option("--evaluations", type=int, help="Evaluations per job, at equal shares of the budget.")
@click.option(
    "--average-half-life", type=float, help="Evaluate an average of the weights with this half-life: 0.1 of the budget."
)
@options.backbone
@click.option("--corpus", help="world, or the path of a corpus (see docs/add-a-subset.md for the layouts).")
@click.option("--suite", help="Evaluation suite.")
@options.reward
@options.preferences
@options.holdout
@click.option("--probes/--no-probes", "probes", default=None, help="Measure exposure bias at every evaluation.")
@click.option(
    "--context",
    type=types.MAYBE_EMPTY,
    callback=types.names,
    help="Pipelines evaluated beside the base and never trained; empty: none, whatever EXPERIMENT names.",
)
@click.option("--tuned", help="Settings that `bench tune` chose: its tuned.toml. Tables and --set override them.")
@click.option("--name", help="Name of the run folder and of the report.")
@options.model
@options.computing
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME.KEY=VALUE",
    help="A setting of a method, variant, pipeline or subset; repeatable.",
)
@options.planning
@options.launching
@click.option("--quiet", is_flag=True, help="Print nothing but errors and the report's path.")
@options.folders
def run(
    experiment: Path | None,
    settings: tuple[str, ...],
    quiet: bool,
    cache: Path,
    runs: Path,
    reports: Path,
    dry_run: bool,
    launcher: str,
    launch_file: Path | None,
    sbatch: tuple[str, ...],
    **flags: Any,
) -> None:
    """Train every method on every subset with every seed under one budget, evaluate, and render the report.

    EXPERIMENT is a TOML file or a name of `bench list experiments`; flags go over it. Ctrl-C stops; the same resumes.

    \b
        bench run --methods sft,soar,flow_grpo --subset high_aesthetic
        bench run embedded_steps --seeds 0,1
        bench run paper_main --dry-run
        bench run paper_main --launcher accelerate --processes 8
    """
    from bench.experiment.config import read_experiment

    planning = options.taken(flags, options.PLANNING)
    launching = options.taken(flags, options.LAUNCHING)
    if not dry_run and (unread := [name for name, value in planning.items() if value is not None]):
        flag = f"--{unread[0].replace('_', '-')}"
        raise BenchError(f"{flag} is an assumption of --dry-run alone; add --dry-run, or leave {flag} out")
    config = read_experiment(experiment, flags, settings)
    if dry_run:
        from bench.plan.show import print_plan
        from bench.rehearsal.ask import memory_of

        print_plan(config, cache, runs, **planning, rehearsed=memory_of(config, planning["gpus"], cache))
        return
    from bench.experiment.run import Workspace
    from bench.launch import launch
    from bench.machine.progress import Progress

    machine, progress = options.machine(launcher, launching, launch_file, sbatch), Progress(quiet=quiet)
    if config.micro_batch == "auto":
        from bench.cli.rows import fitted

        config = fitted(config, launcher, machine, cache, runs, progress.say)
    outcome = launch(launcher, config, Workspace(cache, runs), machine, progress)
    if outcome is None:  # handed to a cluster and not waited for
        return
    from bench.report import render_report  # here, since plotting takes memory that training may want

    target = reports / config.run_name
    render_report([outcome.folder], target)
    say(f"report: {target / 'index.html'}")
    if outcome.failed:
        reasons = [f"{name}: {reason}" for name, reason in outcome.failed.items()]
        raise BenchError(f"{len(reasons)} of the jobs failed:", reasons)
