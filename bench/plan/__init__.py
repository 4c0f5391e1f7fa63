"""What an experiment will take, before it starts: jobs, FLOPs, GPU-hours, memory, disk, and what this machine lacks.

Nothing is started, downloaded or written. FLOPs are counted: what a step takes by the method itself (``probe``),
what a forward and a backward cost on the architecture on the meta device (``work``). Hours are FLOPs at a stated
share of a stated peak; memory (``memory``) and disk (``disk``) follow stated models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.run import Workspace
    from bench.plan.work import Work

PEAK = 989e12
"""FLOP/s of dense bfloat16 matrix products on an H100 SXM or H200 (NVIDIA's data sheets). At 45 % of it the paper's SFT
run takes 23 GPU-hours; the project's earlier figure of 29 is 45 % of 790 TFLOP/s."""
UTILISATION = 0.45
"""Share of the peak that training reaches: the least that this project asks of an SFT step."""
GPUS = 8
"""The release's training command is for one node with eight."""


@dataclass(frozen=True)
class Assumptions:
    """What hours and memory rest on.

    Attributes:
        peak: FLOP/s of one GPU.
        utilisation: share of it that a run reaches.
        gpus: that share a job.
    """

    peak: float = PEAK
    utilisation: float = UTILISATION
    gpus: int = GPUS

    def hours(self, flops: float) -> float:
        """GPU-hours of an amount of work."""
        return flops / (self.peak * self.utilisation) / 3600


@dataclass(frozen=True)
class JobPlan:
    """One job. ``problem`` says why the rest is not known (then it is 0).

    Attributes:
        steps, updates: iterations and optimizer updates that the budget pays for.
        step_flops: FLOPs of one iteration.
        flops: of the whole training.
        evaluation_flops: of its evaluations, which no budget is charged for; None: the suite is not known.
        memory: bytes on one GPU.
        disk: bytes of the checkpoint and the exported weights that it leaves.
    """

    name: str
    steps: int = 0
    updates: int = 0
    step_flops: int = 0
    flops: float = 0.0
    evaluation_flops: float | None = None
    memory: int = 0
    disk: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Amount:
    """A line of the disk table: bytes, or None and why they are not known."""

    what: str
    size: int | None
    note: str = ""


@dataclass(frozen=True)
class ExperimentPlan:
    """Everything that `bench run --dry-run` prints.

    Attributes:
        name, backbone: of the experiment.
        shared_flops: of the base's evaluation and of encoding each pair of known subsets once.
        missing: what this machine lacks, a line each.
        notes: what the numbers leave out, a line each.
    """

    name: str
    backbone: str
    assumptions: Assumptions
    jobs: tuple[JobPlan, ...]
    shared_flops: float
    disk: tuple[Amount, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def flops(self) -> float:
        """Of everything that is known."""
        return self.shared_flops + sum(job.flops + (job.evaluation_flops or 0) for job in self.jobs)


def plan_experiment(config: ExperimentConfig, workspace: Workspace, assumptions: Assumptions) -> ExperimentPlan:
    """Plan an experiment.

    Raises:
        BenchError: something is mistyped, or the backbone is neither on this machine nor known by its hub id.
    """
    from bench.plan.disk import disk
    from bench.plan.machine import missing
    from bench.plan.work import Work

    work = Work(config, workspace.cache, assumptions)
    jobs = work.jobs()
    amounts = disk(work, jobs)
    return ExperimentPlan(
        name=config.run_name,
        backbone=config.backbone,
        assumptions=assumptions,
        jobs=jobs,
        shared_flops=work.shared_flops,
        disk=amounts,
        missing=(*missing(config, workspace, work.architecture, jobs, amounts, work.metrics), *work.problems),
        notes=tuple(_notes(config, work)),
    )


def _notes(config: ExperimentConfig, work: Work) -> list[str]:
    out = ["not counted: curation, waiting for data, starting and compiling"]
    if work.suite is None:
        out.append("not counted: evaluations, since the suite cannot be read here")
    if unknown := [name for name in config.subsets if work.pairs(name) is None]:
        out.append(f"not counted: encoding and caching {', '.join(unknown)}, whose pairs are not known before curation")
    if config.context:
        out.append(f"not counted: weights and evaluations of {', '.join(config.context)}")
    if config.aspect_buckets:
        out.append("pictures count as squares; those in buckets have about as many pixels")
    return out
