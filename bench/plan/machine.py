"""What this machine lacks for an experiment. Looks, and fetches nothing."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import registry
from bench.report.text import listed

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.run import Workspace
    from bench.plan.architecture import Architecture
    from bench.plan.estimates import Amount, JobPlan

ON_A_CPU = 50_000_000
"""Parameters up to which training on a CPU is to be thought of; tiny-sd3 has 3.6 million."""


def missing(
    config: ExperimentConfig,
    workspace: Workspace,
    architecture: Architecture,
    jobs: Sequence[JobPlan],
    disk: Sequence[Amount],
    metrics: Sequence[str],
) -> list[str]:
    """A line for each thing, with what to do about it.

    Args:
        metrics: that evaluate or reward.
    """
    return [
        *_devices(config, architecture, jobs),
        *_backbone(config, architecture),
        *_corpus(config),
        *_packages(config),
        *missing_assets(metrics, workspace.cache),
        *_space(workspace, disk),
    ]


def _devices(config: ExperimentConfig, architecture: Architecture, jobs: Sequence[JobPlan]) -> Iterator[str]:
    import torch

    needed = max((job.memory for job in jobs), default=0)
    if not torch.cuda.is_available():
        parameters = sum(p.numel() for p in architecture.empty_transformer().parameters())
        if parameters > ON_A_CPU:
            low = "" if config.dtype == "float32" else "bfloat16 and "
            yield f"GPU: there is none here, and {parameters / 1e9:.2f} B parameters need one with {low}{_gib(needed)}"
        return
    if config.dtype == "bfloat16" and not torch.cuda.is_bf16_supported():
        yield f"bfloat16: {torch.cuda.get_device_name()} has none; give --dtype float32"
    for number in range(torch.cuda.device_count()):
        has = torch.cuda.get_device_properties(number).total_memory
        if has < needed:
            yield (
                f"GPU memory: cuda:{number} has {_gib(has)} and a job needs about {_gib(needed)}; lower --micro-batch, "
                "add --gradient-checkpointing or --adam-8bit, or spread it with --sharding fsdp over more GPUs"
            )


def _backbone(config: ExperimentConfig, architecture: Architecture) -> Iterator[str]:
    if architecture.folder is None and (config.offline or Path(config.backbone).expanduser().is_dir()):
        yield f"backbone: {architecture.why_absent}"
    elif architecture.folder is None:  # those that can be planned for without being here are gated
        yield (
            f"backbone: {config.backbone} is not in the hub's cache; a run fetches it, once you have accepted its "
            f"licence at https://huggingface.co/{config.backbone} and logged in with `hf auth login`"
        )
    for name in config.context:
        if not _here(name):
            yield f"context: {name} is not on this machine; a run fetches it, or `--context ''` leaves the rows out"


def _here(name: str) -> bool:
    from bench.backbone import hub
    from bench.errors import BenchError

    try:
        hub.resolve(name, offline=True)
    except BenchError:
        return False
    return True


def missing_assets(metrics: Sequence[str], cache: Path) -> Iterator[str]:
    """One line on the files that metrics need and that are not here, if any are."""
    from bench import assets

    needed = dict.fromkeys(asset for name in metrics for asset in registry.load("metrics", name).assets)
    if absent := [name for name in needed if not assets.here(name, cache)]:
        size = sum(assets.get(name).size for name in absent) / 1e9
        yield f"metrics: {listed(absent)} not here ({size:.1f} GB); run `bench assets fetch {' '.join(absent)}`"


def _corpus(config: ExperimentConfig) -> Iterator[str]:
    name = config.corpus
    if name not in registry.table("corpora") and not (Path(name).exists() or Path(name.partition("?")[0]).exists()):
        yield f"corpus: there is no {name}; put the pairs there, or give --corpus"


def _packages(config: ExperimentConfig) -> Iterator[str]:
    wanted = {"bitsandbytes": config.adam_8bit, "tensorboard": "tensorboard" in config.trackers}
    wanted["wandb"] = "wandb" in config.trackers
    for package, needed in wanted.items():
        if needed and importlib.util.find_spec(package) is None:
            yield f"package: {package} is not installed: pip install {package}"


def _space(workspace: Workspace, disk: Sequence[Amount]) -> Iterator[str]:
    folder = next(path for path in (workspace.runs, *workspace.runs.absolute().parents) if path.exists())
    needed, free = sum(line.size or 0 for line in disk), shutil.disk_usage(folder).free
    if free < needed:
        yield f"disk: {needed / 1e9:,.0f} GB are needed and {free / 1e9:,.0f} GB are free at {folder.absolute()}"


def _gib(count: float) -> str:
    return f"{count / 2**30:,.0f} GiB"
