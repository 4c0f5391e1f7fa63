"""``bench evaluate`` and ``bench score``: score without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import options, types
from bench.cli.printing import say
from bench.errors import BenchError, shortened
from bench.machine.bounds import MOST_REPEATS, MOST_STEPS

if TYPE_CHECKING:
    from bench.evaluate.config import EvaluationConfig
    from bench.experiment.run import Outcome


def _steps(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        steps = tuple(int(part) for part in value.split(","))
    except ValueError:
        steps = ()
    if not steps or not all(1 <= step <= MOST_STEPS for step in steps) or len(set(steps)) < len(steps):
        raise BenchError(
            f"--steps takes whole numbers from 1 to {MOST_STEPS} with commas between, each once: 4,10,20, not "
            f"{shortened(value, 80)!r}"
        )
    return steps


def _each_once(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    names = types.names(ctx, param, value)
    if names is not None and (not names or len(set(names)) < len(names)):
        raise BenchError(
            f"{param.opts[0]} takes names with commas between, each once, not {shortened(value or '', 80)!r}"
        )
    return names


def _solvers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    from bench.sampling.names import check_solver

    names = _each_once(ctx, param, value)
    for name in names or ():
        check_solver(name)
    return names


def _levels(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    from bench.sampling.levels import check

    names = _each_once(ctx, param, value)
    for name in names or ():
        check(name)
    return names


def _remedies(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    from bench.sampling.names import EULER, check_remedy, is_auto, read_remedy

    names = _each_once(ctx, param, value)
    for name in names or ():
        if not is_auto(name):
            check_remedy(name, EULER)
    meant = [name if is_auto(name) else read_remedy(name) for name in names or ()]
    if twice := next((name for name, each in zip(names or (), meant, strict=True) if meant.count(each) > 1), None):
        raise BenchError(f"--remedy takes each once, and {twice} is there twice")
    return names


@click.command()
@click.argument("what", nargs=-1, required=True)
@click.option("--suite", default="embedded", show_default=True, help="Prompt sets, metrics and sampling settings.")
@click.option("--backbone", help="Pipeline for a LoRA or a transformer that does not name its own.")
@click.option("--pass", "passes", type=click.Choice(["all", "generate", "score"]), default="all", show_default=True)
@click.option(
    "--metrics",
    callback=types.names,
    default="",
    help="Score with these of the suite's metrics alone; NAME@PROMPT-SET adds one.",
)
@click.option("--guidance", callback=types.scales, metavar="SCALES", help="Draw each WHAT at each scale: 1,2,3,4.5,7.")
@click.option("--steps", callback=_steps, metavar="NUMBERS", help="Draw each WHAT in so many steps: 4,6,10,20,40.")
@click.option(
    "--levels", callback=_levels, metavar="NAMES", help="Draw each WHAT at each list: diffusers-0.42,shifted."
)
@click.option("--solver", callback=_solvers, metavar="NAMES", help="Draw each WHAT with each: euler,heun,dpm++.")
@click.option(
    "--remedy", callback=_remedies, metavar="NAMES", help="Without training: epsilon_scaling=1.005, or =auto."
)
@click.option("--probes", is_flag=True, default=None, help="Measure exposure bias too (docs/exposure-bias.md).")
@click.option("--pairs", metavar="RUN", help="Run whose held-out pairs are read; default: the run of a job or a base.")
@click.option(
    "--all-pairs",
    is_flag=True,
    help="Measure on all held-out pairs, not on as many as a quarter of the pictures' cost pays.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 10**9 - 1),
    help="Prompts per group, for a quick look; the scores compare with no others.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, MOST_REPEATS),
    help="Draw every prompt so many times as often as the suite has it, each time from noise of its own.",
)
@click.option(
    "--name",
    default="",
    help="Name of the run and the report; default: evaluate-<suite>, guidance-<suite> or sweep-<suite>.",
)
@options.revision
@options.offline
@options.max_sequence_length
@options.dtype
@options.evaluation_batch
@click.option("--launcher", type=click.Choice(["local", "accelerate"]), default="local", show_default=True)
@click.option("--processes", type=int, help="Processes that share the work (accelerate); default: one per GPU.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors and the report's path.")
@options.folders
def evaluate(
    launcher: str, processes: int | None, quiet: bool, cache: Path, runs: Path, reports: Path, **flags: Any
) -> None:
    """Score each WHAT on a suite: a pipeline, a fine-tune, a LoRA, a run or one of its jobs, or a folder of images.

    Images are drawn once and kept with their seeds. The same command goes on where it was stopped, tries failed scores
    again, and adds rows to those that are there.

    \b
        bench evaluate tiny-sd3
        bench evaluate stabilityai/stable-diffusion-3.5-medium exports/sft --suite paper
        bench evaluate my-lora --suite paper --backbone stabilityai/stable-diffusion-3.5-medium
        bench evaluate my-images/ --suite paper --metrics pickscore,hpsv2
        bench evaluate tiny-sd3 --limit 1 --pass generate
        bench evaluate runs/high_aesthetic --guidance 1,2,3,4.5,7 --metrics sharpness@scenes
        bench evaluate runs/high_aesthetic/base --remedy epsilon_scaling=auto
    """
    from bench.evaluate.config import read_evaluation
    from bench.evaluate.rows import evaluate as run_evaluation
    from bench.evaluate.subjects import expand
    from bench.experiment.run import Workspace
    from bench.launch.settings import check_read, read_settings
    from bench.launch.signals import stop_signals
    from bench.machine.progress import Progress
    from bench.sampling.names import is_auto

    config, progress, places = read_evaluation(flags), Progress(quiet=quiet), Workspace(cache, runs)
    check_read(launcher, {"processes": processes}, ("accelerate",))
    machine = read_settings(None, {"processes": processes})
    failed: dict[str, str] = {}

    def run(each: EvaluationConfig) -> Outcome:
        if launcher == "accelerate":
            from bench.launch.processes import evaluate_in_processes

            outcome = evaluate_in_processes(each, places, machine, progress)
        else:
            with stop_signals():
                outcome = run_evaluation(each, places, progress)
        failed.update(outcome.failed)
        return outcome

    if any(map(is_auto, config.remedy)):
        from bench.tune.remedy_scale import with_scales

        models = tuple(expand(config.what)[0])
        for each in with_scales(config.model_copy(update={"what": models}), run, progress.say):
            run(each)
    else:
        run(config)
    folder = runs / config.run_name
    if config.passes != "generate" and any(folder.glob("*/job.json")):
        from bench.report import render_report

        target = reports / config.run_name
        render_report([folder], target)
        if not quiet:
            table = next(name for name in ("sweep.md", "guidance.md", "main_results.md") if (target / name).exists())
            say((target / table).read_text(encoding="utf-8"))
        say(f"report: {target / 'index.html'}")
    if failed and quiet:
        raise BenchError("; ".join(f"{what}: {reason}" for what, reason in failed.items()))
    if failed:  # the reasons were said when they came up
        raise BenchError(f"{len(failed)} could not be evaluated as asked: {', '.join(failed)}")


@click.command()
@click.argument("run", type=types.PATH)
@click.option(
    "--metrics", callback=types.names, default="", help="Each NAME or NAME@PROMPT-SET; default: the run's own."
)
@options.cache
def score(run: Path, metrics: tuple[str, ...], cache: Path) -> None:
    """Score the images that RUN keeps: what is missing or failed, or with further metrics. Draws nothing.

    \b
        bench score runs/high_aesthetic
        bench score runs/paper_main --metrics imagereward
        bench score runs/high_aesthetic --metrics saturation@scenes
    """
    from bench.evaluate.rescore import score_run
    from bench.machine.progress import Progress

    score_run(run, metrics, Progress())
    say(f"draw it with: bench report {run}")
