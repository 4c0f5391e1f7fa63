"""The ``bench`` command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import errno
import math
import os
import re
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import click

from bench import registry
from bench.errors import BenchError, concerns_a_path, of_path, one_line, shortened, shown
from bench.launch import signals
from bench.machine.bounds import (
    LARGEST_INTEGER,
    LARGEST_SIDE,
    MOST_GPUS,
    MOST_HELD_OUT,
    MOST_STEPS,
    MOST_TFLOPS,
    MOST_TRAINING_MINUTES,
    MOST_TRIALS,
)
from bench.machine.environment import check_environment


class _Place(click.Path):
    """A path: text that can name a file. With ``folder``, no file stands where the folder is or is to be made."""

    def __init__(self, *, folder: bool = False) -> None:
        super().__init__(path_type=Path)
        self._folder = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        text = os.fspath(value)
        if not text or "\0" in text:
            self.fail(f"{text!r} names no file", param, ctx)
        path = Path(text)
        try:
            if self._folder:
                _check_folder(path)
            else:
                path.stat()
        except OSError as error:
            if self._folder or error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                raise of_path(error, path) from error
        return path  # whether a file is there, and which, the command says in its own words


def _check_folder(path: Path) -> None:
    """Raises OSError unless a path is a folder, or one that can be made: its first part that is there is a folder."""
    for place in (path, *path.absolute().parents):
        try:
            found = place.stat().st_mode
        except FileNotFoundError:
            if place.is_symlink():  # to nowhere: no folder can be made there
                raise NotADirectoryError(errno.ENOTDIR, "", str(place)) from None
            continue
        if not stat.S_ISDIR(found):
            raise NotADirectoryError(errno.ENOTDIR, "", str(place))
        return


class _Number(click.FloatRange):
    """A finite number within bounds; a ``FloatRange`` takes NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


PATH = _Place()
FOLDER = _Place(folder=True)


def _say(text: object) -> None:
    """Print a line, or several; control characters in a file's name are shown and not obeyed."""
    click.echo(shown(str(text), keep="\n\t"))


class _Stoppable(click.Group):
    """Turns Ctrl-C and the signals that ask to stop into one line, in every command, and status 128 + the signal's."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with signals.stoppable():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            pass
        except Exception as error:  # libraries make errors of their own of a stop, as when it comes during an import
            if signals.heard() is None or isinstance(error, (BenchError, click.ClickException, click.exceptions.Exit)):
                raise
        click.echo("bench: stopped; everything recorded is kept, and the same command resumes", err=True)
        ctx.exit(128 + (signals.heard() or signal.SIGINT))


class _OneLineErrors(_Stoppable):
    """Turns errors that the user can mend into one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BenchError as error:
            _end(ctx, error)
        except click.UsageError as error:
            raise click.UsageError(one_line(error.format_message()), error.ctx) from error
        except OSError as error:
            if not concerns_a_path(error):
                raise
            _end(ctx, of_path(error))


def _end(ctx: click.Context, error: BenchError) -> None:
    click.echo("\n  ".join([f"bench: {error}", *error.details]), err=True)
    ctx.exit(1)


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flow-bench", prog_name="bench")
def main() -> None:
    """Compare ways of post-training a text-to-image flow model at equal compute.

    \b
    Three methods under one budget, and a report in reports/high_aesthetic/:
        bench run --methods sft,soar,flow_grpo --subset high_aesthetic
    The paper's protocol, equal steps, three seeds:
        bench run --methods sft,soar --budget steps=100 --seeds 0,1,2 --name steps
    A method's knob (see them with `bench list --config soar`):
        bench run --methods soar --set soar.aux_points=2 --name few-points
    Draw a report again, from records alone:
        bench report runs/high_aesthetic
    What there is, and what runs on this machine:
        bench list
        bench doctor
    A model, a fine-tune, a LoRA or images on a suite, without training:
        bench evaluate tiny-sd3
    Settings chosen fairly; a method of your own, written and held to the promises:
        bench tune --methods sft,soar
        bench new method my_method
        bench check my_method/my_method.py
    A trained model as a diffusers folder or a LoRA:
        bench export runs/high_aesthetic/sft--high_aesthetic--s0 --out exports/sft
    """
    check_environment()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Threads that spin for long while they wait slow a step several times when anything else runs on the same cores;
    # ten thousand turns cost an idle machine nothing (250 ms a step instead of 247).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value is not None else None


def _trackers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return () if value == "none" else _names(ctx, param, value)


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise BenchError(f"--seeds takes whole numbers with commas between, not {shortened(value, 80)!r}") from error


def _scales(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        scales = tuple(float(part) for part in value.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(1 <= s < math.inf for s in scales) or len({f"{s:g}" for s in scales}) < len(scales):
        raise BenchError(
            "--guidance takes numbers of at least 1 with commas between, each once: 1,2,4.5, not "
            f"{shortened(value, 80)!r}"
        )
    return scales


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
    names = _names(ctx, param, value)
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


def _remedies(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    from bench.sampling.names import EULER, check_remedy

    names = _each_once(ctx, param, value)
    for name in names or ():
        check_remedy(name, EULER)
    return names


def _shard(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", value, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise BenchError(f"--shard takes I/N with I from 1 to N, e.g. 1/8, not {shortened(value, 80)!r}")
    return int(found[1]) - 1, int(found[2])


def _share_cache(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    """Suites and metrics, and the processes a command starts, find their assets under the command's cache folder."""
    before = os.environ.get("BENCH_CACHE")
    os.environ["BENCH_CACHE"] = str(value)
    if before is None:
        ctx.call_on_close(lambda: os.environ.pop("BENCH_CACHE", None))
    else:
        ctx.call_on_close(lambda: os.environ.update(BENCH_CACHE=before))
    return value


_places = (
    click.option(
        "--cache",
        type=FOLDER,
        default="cache",
        envvar="BENCH_CACHE",
        show_default=True,
        callback=_share_cache,
        help="Corpora, scores, latents, assets. Also from BENCH_CACHE.",
    ),
    click.option("--runs", type=FOLDER, default="runs", show_default=True, help="Records of runs."),
    click.option("--reports", type=FOLDER, default="reports", show_default=True, help="Rendered reports."),
)


def _with(options: tuple[Any, ...]) -> Any:
    def wrap(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return wrap


_model = (
    click.option("--revision", help="Branch, tag or commit of a hub id."),
    click.option("--offline", is_flag=True, default=None, help="Use the hub's cache alone."),
    click.option("--resolution", type=int, help="Side of a training picture in pixels; default: the suite's."),
    click.option("--max-sequence-length", type=int, help="T5 tokens; default: the backbone's."),
    click.option("--buckets", "aspect_buckets", is_flag=True, default=None, help="Keep aspect ratios, in buckets."),
    click.option("--text-cache-limit", metavar="SIZE", help="Cache text embeddings up to this, e.g. 200GB."),
)
_computing = (
    click.option("--dtype", help="auto, bfloat16 or float32, of matrix products; weights that train stay float32."),
    click.option("--micro-batch", type=int, help="Samples per forward with a graph: lowers memory, changes no result."),
    click.option("--gradient-checkpointing", is_flag=True, default=None, help="Less memory, a third more time."),
    click.option("--compile", is_flag=True, default=None, help="torch.compile the transformer's blocks."),
    click.option("--adam-8bit", "adam_8bit", is_flag=True, default=None, help="Optimizer states in 8 bits."),
    click.option("--evaluation-batch", type=int, help="Images sampled together in evaluations."),
    click.option("--sharding", help="ddp or fsdp, where several processes share a full fine-tune."),
    click.option("--trackers", callback=_trackers, help="tensorboard, wandb, or none."),
)


_planning = (
    click.option("--dry-run", is_flag=True, help="Start nothing; print jobs, hours, memory, disk, what is missing."),
    click.option("--utilisation", type=_Number(0, 1, min_open=True), help="Of a dry run; default: 0.45."),
    click.option(
        "--peak-tflops", type=_Number(0, MOST_TFLOPS, min_open=True), help="Of a GPU in a dry run; default: 989."
    ),
    click.option("--gpus", type=click.IntRange(1, MOST_GPUS), help="That share a job in a dry run; default: 8."),
)


_launching = (
    click.option(
        "--launcher",
        type=click.Choice(["local", "accelerate", "slurm"]),
        default="local",
        show_default=True,
        help="This process, several on this machine, or jobs of a cluster (docs/launchers.md).",
    ),
    click.option("--processes", type=int, help="Processes per machine; default: one per GPU."),
    click.option("--nodes", type=int, help="Machines per job (slurm)."),
    click.option("--gpus-per-node", type=int, help="GPUs that Slurm gives on each machine."),
    click.option("--partition", help="Slurm partition."),
    click.option("--account", help="Slurm account."),
    click.option("--minutes", "time_minutes", type=int, help="Time limit of a Slurm job, which then is queued again."),
    click.option("--cluster", help="slurm, or local: submitit's stand-in on this machine."),
    click.option("--wait/--no-wait", "wait", default=None, help="Wait for the Slurm jobs, or print their ids."),
    click.option("--launch-file", type=PATH, help="TOML file of launcher settings; flags go over it."),
    click.option("--sbatch", multiple=True, metavar="OPTION=VALUE", help="A further sbatch option; repeatable."),
)


LAUNCHING = ("processes", "nodes", "gpus_per_node", "partition", "account", "time_minutes", "cluster", "wait")
"""Options of `run` that are launcher settings of the same name."""


@main.command()
@click.argument("experiment", type=PATH, required=False)
@click.option("--methods", callback=_names, help="Names or .py files with commas between, e.g. sft,./my_method.py.")
@click.option("--subset", "subsets", callback=_names, help="Subsets with commas between, e.g. high_aesthetic.")
@click.option("--seeds", callback=_numbers, help="Seeds with commas between.")
@click.option("--budget", help="Per job: flops=1e13, updates=200, steps=200 or device-seconds=60.")
@click.option("--evaluations", type=int, help="Evaluations per job, at equal shares of the budget.")
@click.option("--backbone", help="tiny-sd3, a hub id, or a local diffusers folder of the SD3 family.")
@click.option("--corpus", help="world, or the path of a corpus (see docs/add-a-subset.md for the layouts).")
@click.option("--suite", help="Evaluation suite.")
@click.option("--reward", help="Metric that rewards; default: the one a subset was cut by, else aesthetic.")
@click.option("--preferences", help="Corpus of preference pairs; default: the one that goes with the corpus.")
@click.option("--holdout", type=int, help="Pairs kept from training, for exposure bias; default: fresh ones, if any.")
@click.option("--probes/--no-probes", "probes", default=None, help="Measure exposure bias at every evaluation.")
@click.option("--context", callback=_names, help="Pipelines evaluated beside the base and never trained.")
@click.option("--tuned", help="Settings that `bench tune` chose: its tuned.toml. Tables and --set go over them.")
@click.option("--name", help="Name of the run folder and of the report.")
@_with(_model)
@_with(_computing)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME.KEY=VALUE",
    help="A setting of a method, variant, pipeline or subset; repeatable.",
)
@_with(_planning)
@_with(_launching)
@click.option("--quiet", is_flag=True, help="Print nothing but errors and the report's path.")
@_with(_places)
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

    EXPERIMENT is a TOML file (see experiments/); flags go over it. Stop with Ctrl-C; the same command resumes.

    \b
        bench run --methods sft,soar,flow_grpo --subset high_aesthetic
        bench run experiments/embedded_steps.toml --seeds 0,1
        bench run experiments/paper_main.toml --dry-run
        bench run experiments/paper_main.toml --launcher accelerate --processes 8
    """
    from bench.experiment.config import read_experiment

    planning = {name: flags.pop(name) for name in ("utilisation", "peak_tflops", "gpus")}
    launching = {name: flags.pop(name) for name in LAUNCHING}
    config = read_experiment(experiment, flags, settings)
    if dry_run:
        from bench.plan.show import print_plan

        print_plan(config, cache, runs, **planning)
        return
    from bench.experiment.run import Workspace
    from bench.launch import launch
    from bench.launch.settings import read_settings
    from bench.machine.progress import Progress

    machine = read_settings(launch_file, launching, sbatch)
    outcome = launch(launcher, config, Workspace(cache, runs), machine, Progress(quiet=quiet))
    if outcome is None:  # handed to a cluster and not waited for
        return
    from bench.report import render_report  # here, since plotting takes memory that training may want

    target = reports / config.run_name
    render_report([outcome.folder], target)
    _say(f"report: {target / 'index.html'}")
    if outcome.failed:
        told = [f"{name}: {reason}" for name, reason in outcome.failed.items()]
        raise BenchError(f"{len(told)} of the jobs failed:", told)


@main.command()
@click.argument("experiment", type=PATH, required=False)
@click.option("--methods", callback=_names, help="Methods, or variants of EXPERIMENT; default: its methods.")
@click.option("--subset", "subsets", callback=_names, help="Subsets; a trial is a job on each.")
@click.option("--trials", type=click.IntRange(1, MOST_TRIALS), help="Of each row; default: 8.")
@click.option("--seed", type=click.IntRange(0, LARGEST_INTEGER), help="Of the trials and of the search; default: 1000.")
@click.option("--budget", help="Of each trial; default: the experiment's.")
@click.option("--suite", default="", help="Validation suite; default: the experiment's with _validation after it.")
@click.option("--prompts", type=PATH, help="Validation prompts, one a line, for the metrics that need no facts.")
@click.option("--objective", default="", help="A metric; default: mean gain over the columns that reports rank.")
@click.option("--space", multiple=True, metavar="NAME.KEY=LOW:HIGH", help="Range of a setting; repeatable.")
@click.option("--backbone", help="tiny-sd3, a hub id, or a local diffusers folder of the SD3 family.")
@click.option("--corpus", help="world, or the path of a corpus.")
@click.option("--reward", help="Metric that rewards; default: the one a subset was cut by, else aesthetic.")
@click.option("--preferences", help="Corpus of preference pairs; default: the one that goes with the corpus.")
@click.option("--holdout", type=int, help="Pairs kept from training, for exposure bias; default: fresh ones, if any.")
@click.option("--name", default="", help="Of the run folder and the report; default: <experiment>-tune.")
@_with(_model)
@_with(_computing)
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="A setting that stays; repeatable.")
@_with(_launching)
@click.option("--quiet", is_flag=True, help="Print nothing but errors and what was written.")
@_with(_places)
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
        bench tune experiments/embedded_steps.toml --trials 16
        bench tune --methods soar --space soar.lr=1e-4:1e-3 --space soar.aux_weight=0.3:3
        bench run experiments/embedded_steps.toml --tuned reports/embedded_steps-tune/tuned.toml
    """
    from bench.experiment.config import read_experiment
    from bench.experiment.run import Workspace
    from bench.launch import launch
    from bench.launch.settings import read_settings
    from bench.machine.progress import Progress
    from bench.tune import SEED, TRIALS, Asked, Tuning, write

    machine = read_settings(launch_file, {option: flags.pop(option) for option in LAUNCHING}, sbatch)
    rows = () if experiment is None else flags.pop("methods") or ()
    config = read_experiment(experiment, flags | {"tuned": ""}, settings)
    seed = SEED if seed is None else seed
    asked = Asked(rows, trials or TRIALS, seed, suite, str(prompts or ""), objective, space, name)
    tuning = Tuning(config, asked)
    places, progress = Workspace(cache, runs), Progress(quiet=quiet)
    result = tuning.run(lambda each: launch(launcher, each, places, machine, progress), runs, progress.say)
    for path in write(result, reports / tuning.config.run_name):
        _say(f"wrote {path}")
    if result.lost:
        raise BenchError(f"every trial of {', '.join(result.lost)} failed; the reasons are in trials.md")


@main.command()
@click.argument("runs", type=PATH, nargs=-1)
@click.option("--out", type=FOLDER, help="Folder to write to; default reports/<experiment>.")
@click.option("--published", is_flag=True, default=None, help="The paper's numbers: beside RUNS, or alone.")
def report(runs: tuple[Path, ...], out: Path | None, published: bool | None) -> None:
    """Draw tables, plots and the page again from the records of RUNS, folders or archives. Needs no GPU.

    \b
        bench report runs/high_aesthetic
        bench report runs/a runs/b --out reports/both
        bench report --published
    """
    from bench.report import render_published, render_report

    if not (runs or published):
        raise BenchError("name a run folder, e.g. runs/high_aesthetic, or ask for --published")
    names = (run.resolve().name.partition(".tar")[0] for run in runs)  # of `.` too
    target = out or Path("reports") / ("-".join(names) or "published")
    if runs:
        render_report(list(runs), target, published)
    else:
        render_published(target)
    _say(f"report: {target / 'index.html'}")


@main.command()
@click.argument("run", type=PATH)
@click.option("--out", type=PATH, required=True, help="File to write, ending in .tar.xz.")
def archive(run: Path, out: Path) -> None:
    """Pack what RUN's report is drawn from into one small file: records and the images shown, no weights.

    \b
        bench archive runs/embedded --out reports/embedded/records.tar.xz
        bench report reports/embedded/records.tar.xz --out reports/again
    """
    from bench.records.archive import pack

    count = pack(run, out)
    _say(f"archive: {out} ({count} files, {out.stat().st_size / 1e6:.2f} MB)")


@main.command()
@click.argument("what", nargs=-1, required=True)
@click.option("--suite", default="embedded", show_default=True, help="Prompt sets, metrics and sampling settings.")
@click.option("--backbone", help="Pipeline of a LoRA or of a lone transformer that does not name its own.")
@click.option("--pass", "passes", type=click.Choice(["all", "generate", "score"]), default="all", show_default=True)
@click.option(
    "--metrics", callback=_names, default="", help="Those of the suite to score with alone; NAME@PROMPT-SET adds one."
)
@click.option("--guidance", callback=_scales, metavar="SCALES", help="Draw each WHAT at each scale: 1,2,3,4.5,7.")
@click.option("--steps", callback=_steps, metavar="NUMBERS", help="Draw each WHAT in so many steps: 4,6,10,20,40.")
@click.option("--solver", callback=_solvers, metavar="NAMES", help="Draw each WHAT with each: euler,heun,dpm++.")
@click.option("--remedy", callback=_remedies, metavar="NAMES", help="Without training: epsilon_scaling=1.005.")
@click.option("--probes", is_flag=True, default=None, help="Measure exposure bias too (docs/exposure-bias.md).")
@click.option("--pairs", metavar="RUN", help="Run whose held-out pairs are read; default: the run of a job or a base.")
@click.option("--limit", type=click.IntRange(1, 10**9 - 1), help="Prompts per group, for a look: never comparable.")
@click.option("--name", default="", help="Of run folder and report; default: evaluate-<suite>, or guidance-<suite>.")
@_with((*_model[:2], _model[3]))
@_with((_computing[0], _computing[5]))
@click.option("--launcher", type=click.Choice(["local", "accelerate"]), default="local", show_default=True)
@click.option("--processes", type=int, help="Processes that share the work (accelerate); default: one per GPU.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors and the report's path.")
@_with(_places)
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
    """
    from bench.evaluate.rows import evaluate as run_evaluation
    from bench.evaluate.rows import read_evaluation
    from bench.experiment.run import Workspace
    from bench.launch.signals import stop_signals
    from bench.machine.progress import Progress

    config, progress, places = read_evaluation(flags), Progress(quiet=quiet), Workspace(cache, runs)
    if launcher == "accelerate":
        from bench.launch.processes import evaluate_in_processes
        from bench.launch.settings import read_settings

        outcome = evaluate_in_processes(config, places, read_settings(None, {"processes": processes}, ()), progress)
    else:
        with stop_signals():
            outcome = run_evaluation(config, places, progress)
    if config.passes != "generate" and any(outcome.folder.glob("*/job.json")):
        from bench.report import render_report

        target = reports / config.run_name
        render_report([outcome.folder], target)
        if not quiet:
            table = next(name for name in ("sweep.md", "guidance.md", "main_results.md") if (target / name).exists())
            _say((target / table).read_text(encoding="utf-8"))
        _say(f"report: {target / 'index.html'}")
    if outcome.failed and quiet:
        raise BenchError("; ".join(f"{what}: {reason}" for what, reason in outcome.failed.items()))
    if outcome.failed:  # the reasons were said when they came up
        raise BenchError(f"{len(outcome.failed)} could not be evaluated: {', '.join(outcome.failed)}")


@main.command()
@click.argument("run", type=PATH)
@click.option("--metrics", callback=_names, default="", help="Each NAME or NAME@PROMPT-SET; default: the run's own.")
@_with(_places[:1])
def score(run: Path, metrics: tuple[str, ...], cache: Path) -> None:
    """Score the images that RUN keeps: what is missing or failed, or with further metrics. Draws nothing.

    \b
        bench score runs/high_aesthetic
        bench score runs/paper_main --metrics imagereward
        bench score runs/high_aesthetic --metrics saturation@scenes
    """
    from bench.evaluate.rows import score_run
    from bench.machine.progress import Progress

    score_run(run, metrics, Progress())
    _say(f"draw it with: bench report {run}")


@main.command()
@click.argument("job", type=PATH)
@click.option("--out", type=FOLDER, required=True, help="Folder to write to: empty, or not there.")
@click.option("--backbone", help="Folder or hub id of the backbone, where it is not where it was trained from.")
@click.option("--transformer-only", is_flag=True, help="Leave the backbone's other components out.")
def export(job: Path, out: Path, backbone: str | None, transformer_only: bool) -> None:
    """Write what JOB trained as people load it: a diffusers pipeline or a LoRA adapter, with a model card.

    \b
        bench export runs/high_aesthetic/sft--high_aesthetic--s0 --out exports/sft
    A pipeline's other components are hard-linked where the disk allows it and copied elsewhere; T5-XXL has 10 GB.
    """
    from bench.export.folder import export_job

    export_job(job, out, backbone=backbone, transformer_only=transformer_only, say=_say)
    _say(f"export: {out}")


@main.command()
@click.option("--corpus", default="world", show_default=True, help="world, or the path of a corpus.")
@click.option("--subset", "names", callback=_names, default="high_aesthetic,high_clipscore", show_default=True)
@click.option("--suite", default="embedded", show_default=True, help="Whose metrics score the corpus.")
@click.option("--threshold", type=_Number(), help="Least score kept, instead of the subset's own.")
@click.option("--quantile", type=_Number(0, 1, min_open=True), help="Share of the corpus to keep, best first.")
@click.option(
    "--holdout", type=click.IntRange(0, MOST_HELD_OUT), default=0, help="Pairs of each subset that no method trains on."
)
@click.option("--metric", help="Only score the corpus with this metric and show how the scores lie.")
@click.option(
    "--resolution",
    type=click.IntRange(1, LARGEST_SIDE),
    default=64,
    show_default=True,
    help="Side of the pictures in pixels.",
)
@click.option("--buckets", "aspect_buckets", is_flag=True, help="Keep aspect ratios, in buckets.")
@click.option("--shard", callback=_shard, metavar="I/N", help="Do just the I-th of N shares of the work; cut nothing.")
@_with(_places[:1])
def curate(corpus: str, names: tuple[str, ...], suite: str, cache: Path, **settings: Any) -> None:
    """Score a corpus once and cut subsets from it into manifests. `bench run` does this on its own when needed.

    \b
        bench curate --subset high_aesthetic,high_clipscore
        bench curate --subset high_aesthetic --quantile 0.1
        bench curate --metric world_clipscore
    Share a large corpus out over processes, then run the command without --shard to cut:
        bench curate --corpus train.jsonl --suite drawbench --resolution 512 --subset high_aesthetic --shard 1/8
    Then `bench run --set high_aesthetic.quantile=0.1` trains on that cut.
    """
    registry.load("curation", "command")(corpus, names, suite, cache, **settings)


@main.command("list")
@click.argument("kind", required=False)
@click.option("--config", "method", help="Show the settings of a method, or of a .py file's, with their sources.")
def list_(kind: str | None, method: str | None) -> None:
    """Methods, subsets, suites, metrics, corpora and backbones, with a summary of each; or all of one KIND.

    \b
        bench list
        bench list methods         # with their papers, needs and costs per step
        bench list --config soar
    """
    from bench.cli import listing

    if method is not None:
        from bench import plugins

        method = plugins.named(method)
        cls = plugins.load(method)
        for name, field in cls.Config.model_fields.items():
            tiny = f" (on tiny-sd3: {cls.embedded[name]!r})" if name in cls.embedded else ""
            text = f"{method}.{name} = {field.default!r}{tiny}  {field.description or ''}".rstrip()
            _say(listing.folded(text, "    "))
        return
    for line in listing.everything() if kind is None else listing.one(kind):
        _say(line)


@main.command()
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
        _say(finding)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@main.group()
def new() -> None:
    """Write a plugin that runs at once, to start from."""


@new.command("method")
@click.argument("name")
@click.option("--out", type=FOLDER, help="Folder to write, which must not be there; default: ./NAME.")
def new_method(name: str, out: Path | None) -> None:
    """Write a package with the method NAME, its settings, an experiment and tests.

    \b
        bench new method my_method
        bench check my_method/my_method.py
        bench run my_method/experiment.toml
    """
    from bench.scaffold import write_method

    for line in write_method(name, out or Path(name)):
        _say(line)


@main.group()
def assets() -> None:
    """Prompt files and models that the real suites need and the repository does not hold.

    \b
        bench assets list
        bench assets fetch drawbench_prompts aesthetic_head clip_vit_l14
        bench assets fetch --from /media/disk      (no network: found there by content)
        bench assets verify
    """


@assets.command("list")
@_with(_places[:1])
def list_assets(cache: Path) -> None:
    """Every asset: whether it is here, its size, what it is, its licence and its source."""
    from bench import assets as store

    def size(number: int) -> str:
        return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e3:,.1f} kB"

    here = 0
    for name, asset in store.TABLE.items():
        state = store.state(name, cache, hashed=False)
        here += asset.size if state == "present" else 0
        _say(f"{name:<22} {state:<8} {size(asset.size):>10}  {asset.what}")
        _say(f"{'':<22} licence: {asset.licence}")
        _say(f"{'':<22} from:    {asset.source}")
    total = sum(asset.size for asset in store.TABLE.values())
    _say(f"{len(store.TABLE)} assets, {size(total)}; {size(here)} are here")


@assets.command("fetch")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--suite", help="All that a suite's prompts and metrics need.")
@click.option("--from", "source", type=PATH, help="Folder of this machine to copy from, instead of the network.")
@_with(_places[:1])
def fetch_assets(names: tuple[str, ...], suite: str | None, source: Path | None, cache: Path) -> None:
    """Fetch NAMEs, or every small file where none is given; what has 100 MB and more is fetched by name or --suite."""
    from bench import assets as store
    from bench.assets.kinds import File

    wanted = [*names, *(store.of_suite(suite, cache, source) if suite else ())]
    chosen = [store.get(name) for name in wanted] or [
        a for a in store.TABLE.values() if isinstance(a, File) and a.size < 1e8
    ]
    failed = []
    for asset in chosen:
        try:
            _say(f"{asset.name}: {store.fetch(asset.name, cache, source)}")
        except BenchError as error:
            failed.append(str(error))
    if failed:
        others = f" (and {len(failed) - 1} more of {len(chosen)})" if len(failed) > 1 else ""
        raise BenchError(failed[0] + others)


@assets.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_with(_places[:1])
def verify_assets(names: tuple[str, ...], cache: Path) -> None:
    """Hash what is here. Ends with status 1 where something differs or a NAMEd asset is missing."""
    from bench import assets as store

    bad = []
    for name in [store.get(name).name for name in names] or list(store.TABLE):
        state = store.state(name, cache, hashed=True)
        _say(f"{name:<22} {state}")
        if state.startswith("differs") or (state == "missing" and names):
            bad.append(name)
    if bad:
        raise BenchError(f"not as they should be: {', '.join(bad)}; run `bench assets fetch {' '.join(bad)}`")


@main.command()
def doctor() -> None:
    """What is installed, which device there is, what can run, and how to get what is missing."""
    from bench.machine.doctor import examine

    findings = examine()
    for finding in findings:
        _say(f"{'ok  ' if finding.ok else 'MISS'} {finding.what}: {finding.detail}")
    if not all(finding.ok or finding.optional for finding in findings):
        sys.exit(1)


@main.command()
@click.option(
    "--stage", type=click.Choice(["vae", "clip", "policy", "quality", "all"]), default="all", show_default=True
)
@click.option("--out", type=FOLDER, default="cache/pretrain", show_default=True)
@click.option(
    "--minutes",
    type=_Number(0, MOST_TRAINING_MINUTES, min_open=True),
    help="Training time of the stage, instead of the recipe's.",
)
def pretrain(stage: str, out: Path, minutes: float | None) -> None:
    """Train the embedded backbone and its judge anew: VAE, CLIP, then the flow model. Two CPU cores need 1.5 hours."""
    for name in ("vae", "clip", "policy", "quality") if stage == "all" else (stage,):
        registry.load("recipes", name)(out, minutes)


if __name__ == "__main__":
    main()
