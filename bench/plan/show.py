"""Prints a plan: tables on a terminal, plain columns elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from bench.plan import plan_experiment
from bench.plan.estimates import GPUS, PEAK, UTILISATION, Amount, Assumptions, ExperimentPlan, JobPlan

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig

WIDE = 160
"""Columns where the output is no terminal, so that no line is broken for a reader or for grep."""


def print_plan(
    config: ExperimentConfig,
    cache: Path,
    runs: Path,
    *,
    peak_tflops: float | None = None,
    utilisation: float | None = None,
    gpus: int | None = None,
    rehearsed: Mapping[str, int] | None = None,
) -> None:
    """Plan an experiment and print the plan. None: the default of ``Assumptions``.

    Args:
        rehearsed: as ``plan_experiment`` takes it.
    """
    from bench.experiment.run import Workspace

    peak = PEAK if peak_tflops is None else 1e12 * peak_tflops
    assumptions = Assumptions(peak, utilisation or UTILISATION, gpus or GPUS)
    show(plan_experiment(config, Workspace(cache, runs), assumptions, rehearsed))


def show(plan: ExperimentPlan) -> None:
    """Print a plan to the standard output."""
    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, markup=False, width=WIDE, color_system=None)
    assumed, hours = plan.assumptions, plan.assumptions.hours(plan.flops)
    console.print(f"{plan.name}: {_count(len(plan.jobs), 'job')} on {plan.backbone}; nothing is started")
    console.print(_jobs(plan, console))
    if plan.shared_flops:
        shared = _hours(assumed.hours(plan.shared_flops))
        console.print(f"shared by all jobs: {shared} GPU-hours to encode and to evaluate the base")
    console.print(
        f"GPU-hours: {_hours(hours)} in all, {_hours(hours / assumed.gpus)} hours on {_count(assumed.gpus, 'GPU')}, "
        f"at {assumed.utilisation:.0%} of {assumed.peak / 1e12:,.0f} TFLOP/s each"
    )
    console.print()
    console.print(_disk(plan.disk, console))
    console.print(f"disk: {_gigabytes(sum(line.size or 0 for line in plan.disk))} GB in all of what is known")
    console.print()
    console.print("missing on this machine:" if plan.missing else "missing on this machine: nothing", style="bold")
    for line in plan.missing:
        console.print(f"  - {line}", soft_wrap=True)
    for note in plan.notes:
        console.print(note, soft_wrap=True)


def _jobs(plan: ExperimentPlan, console: Console) -> Table:
    table = _table(console)
    table.add_column("job", no_wrap=True)
    work = ("steps", "updates", "TFLOP a step", "EFLOP", "GPU-hours", "evaluations", "probes")
    headings = [*work, "memory a GPU", "kept"]
    if compared := any(job.formula for job in plan.jobs):
        headings.insert(-1, "by the formula")
    for heading in headings:
        table.add_column(heading, justify="right")
    for job in plan.jobs:
        table.add_row(job.name, *(_cells(job, plan, compared=compared) if not job.problem else (job.problem,)))
    return table


def _cells(job: JobPlan, plan: ExperimentPlan, *, compared: bool) -> tuple[str, ...]:
    hours, uncharged = plan.assumptions.hours, (job.evaluation_flops, job.probe_flops)
    return (
        f"{job.steps:,}",
        f"{job.updates:,}",
        _digits(job.step_flops / 1e12),
        _digits(job.flops / 1e18),
        _hours(hours(job.flops)),
        *("?" if flops is None else _hours(hours(flops)) for flops in uncharged),
        f"{job.memory / 2**30:,.1f} GiB",
        *((_beside(job),) if compared else ()),
        f"{_gigabytes(job.disk)} GB",
    )


def _beside(job: JobPlan) -> str:
    """The formula beside what a rehearsal found, with its error."""
    if not job.formula:
        return "not rehearsed"
    return f"{job.formula / 2**30:,.1f} GiB ({job.formula / job.memory - 1:+.0%})"


def _disk(lines: tuple[Amount, ...], console: Console) -> Table:
    table = _table(console)
    table.add_column("disk", no_wrap=True)
    table.add_column("GB", justify="right")
    table.add_column("")
    for line in lines:
        table.add_row(line.what, "?" if line.size is None else _gigabytes(line.size), line.note)
    return table


def _table(console: Console) -> Table:
    return Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, header_style="bold")


def _digits(value: float) -> str:
    """Three digits that count, and no powers of ten: 2,930 · 29.3 · 0.293."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}" if value >= 0.001 else "<0.001"


def _hours(value: float) -> str:
    return "<0.01" if 0 < value < 0.01 else f"{value:,.2f}" if value < 10 else f"{value:,.1f}"


def _gigabytes(size: float) -> str:
    return "<0.01" if 0 < size < 1e7 else f"{size / 1e9:,.2f}" if size < 1e10 else f"{size / 1e9:,.0f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")
