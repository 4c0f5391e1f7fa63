"""What a plan says: of each job, of the disk and of the whole experiment, and what hours and memory rest on."""

from __future__ import annotations

from dataclasses import dataclass

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
        probe_flops: of the probes of all its evaluations, at most; None: the suite is not known.
        memory: bytes that one GPU must have.
        formula: what ``memory.py`` says of them, where they were rehearsed; else 0.
        disk: bytes of the checkpoint and the exported weights that it leaves.
    """

    name: str
    steps: int = 0
    updates: int = 0
    step_flops: int = 0
    flops: float = 0.0
    evaluation_flops: float | None = None
    probe_flops: float | None = None
    memory: int = 0
    formula: int = 0
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
        shared_flops: of the base's evaluation with its probes, and of encoding each pair of known subsets once.
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
        of_jobs = (job.flops + (job.evaluation_flops or 0) + (job.probe_flops or 0) for job in self.jobs)
        return self.shared_flops + sum(of_jobs)
