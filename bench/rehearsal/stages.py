"""What of an experiment is rehearsed: the stages of its rows, and the settings that their memory is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch

from bench.experiment.config import ExperimentConfig, rows_at_once
from bench.experiment.keys import job_specs
from bench.machine.engine import Sharding
from bench.plan.estimates import Assumptions
from bench.plan.work import Work
from bench.rehearsal.perform import Stage
from bench.rehearsal.results import Rehearsal, Setting
from bench.suite import Sampler

STEPS, GUIDANCE = 40, 4.5
"""Of an evaluation whose suite cannot be read here: the SOAR paper's (section 3.1). No memory hangs on the steps."""


def stages_of(config: ExperimentConfig, cache: Path, setting: Setting) -> list[Stage]:
    """The stages of an experiment's rows, each once.

    Raises:
        BenchError: a configuration does not hold, or the backbone is no SD3 or not known.
    """
    work = Work(config, cache, Assumptions(gpus=setting.processes))
    architecture = work.architecture
    sampler = work.suite.sampler if work.suite else Sampler(STEPS, GUIDANCE, architecture.resolution)
    jobs = job_specs(config, work.suite, architecture.scale)
    stages = []
    for row in config.methods:
        of_row = [job for job in jobs if job.key.method == row]
        named = (config.reward or job.reward for job in of_row)
        own = replace(setting, micro_batch=rows_at_once(config, architecture.scale, row))
        rewards = tuple(dict.fromkeys(name for name in named if name))
        for stage in of_row[0].recipe.stages:
            stages.append(
                Stage(
                    row=row,
                    name=stage.name,
                    make=stage.make,
                    needs=stage.needs,
                    architecture=architecture,
                    setting=own,
                    dtype=torch.bfloat16 if work.low else torch.float32,
                    evaluation_batch=config.evaluation_batch,
                    half_life=config.half_life(work.suite),
                    ahead=any(work.ahead(subset) for subset in config.subsets),
                    sampler=sampler,
                    rewards=rewards,
                )
            )
    return stages


def short_settings(whole: Rehearsal, *, own: bool) -> Iterator[Setting]:
    """Settings whose forwards and backwards say what others need, with micro-batches of one and two, since memory grows
    with them in a line.

    Args:
        own: of the rehearsal's own setting alone; else with and without checkpointing and sharding.
    """
    shardings: list[Sharding] = ["ddp"]
    if whole.setting.processes > 1 and whole.trained == whole.parameters:
        shardings.append("fsdp")
    checkpointings = [False, True]
    if own:
        shardings, checkpointings = [whole.sharding], [whole.setting.gradient_checkpointing]
    for checkpointing, sharding, rows in product(checkpointings, shardings, (1, 2)):
        yield replace(whole.setting, micro_batch=rows, sharding=sharding, gradient_checkpointing=checkpointing)
