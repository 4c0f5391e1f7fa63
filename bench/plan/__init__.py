"""What an experiment will take, before it starts: jobs, FLOPs, GPU-hours, memory, disk, and what this machine lacks.

Nothing is started, downloaded or written. FLOPs are counted: what a step takes by the method itself (``probe``),
what a forward and a backward cost on the architecture on the meta device (``work``). Hours are FLOPs at a stated
share of a stated peak; disk (``disk``) follows a stated model. Memory is what a rehearsal found, where the cache has
one of the same configuration (``bench/rehearsal/``); else a formula's (``memory``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.plan.estimates import Assumptions, ExperimentPlan, JobPlan

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.run import Workspace
    from bench.plan.work import Work


def plan_experiment(
    config: ExperimentConfig, workspace: Workspace, assumptions: Assumptions, rehearsed: Mapping[str, int] | None = None
) -> ExperimentPlan:
    """Plan an experiment.

    Args:
        rehearsed: bytes that one GPU must have by a rehearsal, of each row that was rehearsed.

    Raises:
        BenchError: something is mistyped, or the backbone is neither on this machine nor known by its hub id.
    """
    from bench.plan.disk import disk
    from bench.plan.machine import missing
    from bench.plan.work import Work

    work = Work(config, workspace.cache, assumptions, rehearsed)
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
        notes=tuple(_notes(config, work, jobs)),
    )


def _notes(config: ExperimentConfig, work: Work, jobs: Sequence[JobPlan]) -> list[str]:
    out = ["not counted: curation, waiting for data, starting and compiling"]
    if any(not job.formula and not job.problem for job in jobs):
        out.append(
            "memory is by a formula that leaves out sampling, decoding and what lives for a moment; `bench rehearse` "
            f"with --processes {work.assumptions.gpus} finds it, and the next dry run shows what it found"
        )
    if work.suite is None:
        out.append("not counted: evaluations, since the suite cannot be read here")
    if work.probe_flops:
        out.append("probes count at most: there may be fewer held-out pairs than are asked for")
    if unknown := [name for name in config.subsets if work.pairs(name) is None]:
        out.append(f"not counted: encoding and caching {', '.join(unknown)}, whose pairs are not known before curation")
    for name in filter(work.ahead, config.subsets):
        if (pairs := work.pairs(name)) is None:
            out.append(f"memory: the text of {name} is taken to be encoded ahead, since its pairs are not known")
            continue
        hours, size = work.assumptions.hours(pairs * work.caption_flops), math.ceil(pairs * work.text_row / 1e9)
        out.append(
            f"not counted: the text of {name}, which is encoded ahead in every job: {work.caption_flops / 1e12:.3g} "
            f"TFLOP a caption, {hours:,.3g} GPU-hours for each pass over {pairs:,} captions; with "
            f"text_cache_limit {size}GB each is encoded once"
        )
    if config.context:
        out.append(f"not counted: weights and evaluations of {', '.join(config.context)}")
    if config.aspect_buckets:
        out.append("pictures count as squares; those in buckets have about as many pixels")
    return out
