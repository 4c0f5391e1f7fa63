"""What ``--micro-batch auto`` asks of this machine: its GPUs' memory, and how many processes will share a job."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig
    from bench.launch.settings import LaunchSettings


def fitted(
    config: ExperimentConfig,
    launcher: str,
    machine: LaunchSettings,
    cache: Path,
    runs: Path,
    say: Callable[[str], None],
) -> ExperimentConfig:
    """An experiment with numbers in place of ``auto``.

    Raises:
        BenchError: there is no GPU here to ask, or ``auto`` found no number.
    """
    import torch

    from bench.launch.processes import how_many
    from bench.machine.environment import check_group
    from bench.rehearsal.auto import OTHERWISE, chosen

    check_group()
    if launcher == "slurm":
        raise BenchError(
            "--micro-batch auto asks this machine's GPU, and Slurm's jobs run on others; `bench rehearse --memory` "
            f"says what fits theirs: {OTHERWISE}"
        )
    if not torch.cuda.is_available():
        raise BenchError(f"--micro-batch auto asks a GPU for its memory, and this machine has none; {OTHERWISE}")
    if config.dtype == "auto" and not torch.cuda.is_bf16_supported(False):  # as the engine of the run will choose
        config = config.model_copy(update={"dtype": "float32"})
    return chosen(
        config,
        processes=how_many(machine) if launcher == "accelerate" else int(os.environ.get("WORLD_SIZE") or 1),
        memory=min(torch.cuda.get_device_properties(n).total_memory for n in range(torch.cuda.device_count())),
        cache=cache,
        runs=runs,
        say=say,
    )
