"""``bench tune``: choose the methods' settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bench.cli import options, types
from bench.cli.printing import say
from bench.errors import BenchError
from bench.machine.bounds import LARGEST_INTEGER, MOST_TRIALS


@click.command()
@click.argument("experiment", type=types.PATH, required=False)
@click.option("--methods", callback=types.names, help="Methods, or variants of EXPERIMENT; default: its methods.")
@click.option("--subset", "subsets", callback=types.names, help="Subsets; a trial is a job on each.")
@click.option("--trials", type=click.IntRange(1, MOST_TRIALS), help="Trials of each row; default: 8.")
@click.option(
    "--seed", type=click.IntRange(0, LARGEST_INTEGER), help="Seed of the trials and of the search; default: 1000."
)
@click.option("--budget", help="Budget of each trial; default: the experiment's.")
@click.option("--suite", default="", help="Validation suite; default: the experiment's with _validation after it.")
@click.option("--prompts", type=types.PATH, help="Validation prompts, one a line, for the metrics that need no facts.")
@click.option("--objective", default="", help="A metric; default: mean gain over the columns that reports rank.")
@click.option("--space", multiple=True, metavar="NAME.KEY=LOW:HIGH", help="Range of a setting; repeatable.")
@options.backbone
@click.option("--corpus", help="world, or the path of a corpus.")
@options.reward
@options.preferences
@options.holdout
@click.option("--name", default="", help="Name of the run and the report; default: <experiment>-tune.")
@options.model
@options.computing
@click.option(
    "--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="A setting that is not varied; repeatable."
)
@options.launching
@click.option("--quiet", is_flag=True, help="Print nothing but errors and what was written.")
@options.folders
def tune(
    experiment: Path | None,
    trials: int | None,
    seed: int | None,
    suite: str,
    prompts: Path | None,
    objective: str,
    space: tuple[str, ...],
    name: str,
    settings: tuple[str, ...],
    quiet: bool,
    cache: Path,
    runs: Path,
    reports: Path,
    launcher: str,
    launch_file: Path | None,
    sbatch: tuple[str, ...],
    **flags: Any,
) -> None:
    """Choose every method's settings among the same number of trials, on prompts and a seed that no report shows.

    The first trial is the present setting. Stop with Ctrl-C; the same command resumes.

    \b
        bench tune --methods sft,soar --subset high_aesthetic
        bench tune embedded_steps --trials 16
        bench tune --methods soar --space soar.lr=1e-4:1e-3 --space soar.aux_weight=0.3:3
        bench run embedded_steps --tuned reports/embedded_steps-tune/tuned.toml
    """
    from bench.experiment.config import read_experiment
    from bench.experiment.run import Workspace
    from bench.launch import launch
    from bench.launch.settings import read_settings
    from bench.machine.progress import Progress
    from bench.tune import SEED, TRIALS, Request, Tuning, write

    machine = read_settings(launch_file, options.taken(flags, options.LAUNCHING), sbatch)
    rows = () if experiment is None else flags.pop("methods") or ()
    config = read_experiment(experiment, flags | {"tuned": ""}, settings)
    seed = SEED if seed is None else seed
    request = Request(rows, trials or TRIALS, seed, suite, str(prompts or ""), objective, space, name)
    tuning = Tuning(config, request)
    places, progress = Workspace(cache, runs), Progress(quiet=quiet)
    result = tuning.run(lambda each: launch(launcher, each, places, machine, progress), runs, progress.say)
    for path in write(result, reports / tuning.config.run_name):
        say(f"wrote {path}")
    if result.lost:
        raise BenchError(f"every trial of {', '.join(result.lost)} failed; the reasons are in trials.md")
