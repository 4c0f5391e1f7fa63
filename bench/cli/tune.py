"""``bench tune``: choose the methods' settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import options, types
from bench.cli.printing import say
from bench.errors import BenchError
from bench.machine.bounds import LARGEST_INTEGER, MOST_TRIALS

if TYPE_CHECKING:
    from bench.evaluate.config import EvaluationConfig
    from bench.experiment.run import Outcome, Workspace
    from bench.machine.progress import Progress


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
@click.option(
    "--confirm",
    type=click.IntRange(0, MOST_TRIALS),
    help="Best trials to run again on fresh seeds beside the first; default: 2. 0: the best trial wins.",
)
@click.option(
    "--guidance",
    callback=types.scales,
    metavar="SCALES",
    help="Scales to choose each row's own among; default: 1,2,3,4.5,7.",
)
@click.option("--no-guidance", is_flag=True, help="Choose no scale of guidance.")
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
    confirm: int | None,
    guidance: tuple[float, ...] | None,
    no_guidance: bool,
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

    The first trial is the present setting. It and the best ones run again on fresh seeds, and the median decides.
    Stop with Ctrl-C; the same command resumes.

    \b
        bench tune --methods sft,soar --subset high_aesthetic
        bench tune embedded_steps --trials 16
        bench tune --methods soar --space soar.lr=1e-4:1e-3 --space soar.aux_weight=0.3:3
        bench run embedded_steps --tuned reports/embedded_steps-tune/tuned.toml
    """
    from bench.experiment.config import read_experiment
    from bench.experiment.run import Workspace
    from bench.launch import launch
    from bench.machine.progress import Progress
    from bench.tune import NEEDS_RESULTS, SEED, TRIALS, Request, Tuning, write
    from bench.tune.confirm import BEST
    from bench.tune.guidance import SCALES, sweep_of

    if guidance and no_guidance:
        raise BenchError("choose among the scales of --guidance or give --no-guidance, not both")
    machine = options.machine(launcher, options.taken(flags, options.LAUNCHING), launch_file, sbatch)
    if machine.wait is False:
        raise BenchError(NEEDS_RESULTS)
    rows = () if experiment is None else flags.pop("methods") or ()
    config = read_experiment(experiment, flags | {"tuned": ""}, settings)
    if config.micro_batch == "auto":
        raise BenchError("--micro-batch auto is of `bench run`; give a tuning a number")
    request = Request(
        rows=rows,
        trials=trials or TRIALS,
        seed=SEED if seed is None else seed,
        suite=suite,
        prompts=str(prompts or ""),
        objective=objective,
        space=space,
        confirm=BEST if confirm is None else confirm,
        scales=() if no_guidance else guidance or SCALES,
        name=name,
    )
    tuning = Tuning(config, request)
    places, progress = Workspace(cache, runs), Progress(quiet=quiet)
    result = tuning.run(
        lambda each: launch(launcher, each, places, machine, progress),
        lambda jobs, scales: _sweep(sweep_of(tuning.config, jobs, scales), places, progress),
        runs,
        progress.say,
    )
    for path in write(result, reports / tuning.config.run_name):
        say(f"wrote {path}")
    if result.lost:
        raise BenchError(f"every trial of {', '.join(result.lost)} failed; the reasons are in trials.md")


def _sweep(config: EvaluationConfig, places: Workspace, progress: Progress) -> Outcome:
    """Draw and score jobs of a tuning at each scale, in this process. One that cannot be drawn is said and left out."""
    from bench.evaluate.rows import evaluate
    from bench.launch.signals import stop_signals

    with stop_signals():
        return evaluate(config, places, progress)
