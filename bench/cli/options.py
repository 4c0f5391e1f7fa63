"""Options that several commands share, as decorators: one for each option, and one for each group of options."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bench.cli import types
from bench.errors import BenchError
from bench.machine.bounds import MOST_GPUS, MOST_TFLOPS

if TYPE_CHECKING:
    from bench.launch.settings import LaunchSettings

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]


def _group(*decorators: Decorator[Any]) -> Decorator[Any]:
    """Several options as one decorator; the help shows them in this order."""

    def wrap(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return wrap


# -- folders -----------------------------------------------------------------------------------------------------------


def _share_cache(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    """Suites and metrics, and the processes a command starts, find their assets under the command's cache folder."""
    before = os.environ.get("BENCH_CACHE")
    os.environ["BENCH_CACHE"] = str(value)
    if before is None:
        ctx.call_on_close(lambda: os.environ.pop("BENCH_CACHE", None))
    else:
        ctx.call_on_close(lambda: os.environ.update(BENCH_CACHE=before))
    return value


cache = click.option(
    "--cache",
    type=types.FOLDER,
    default="cache",
    envvar="BENCH_CACHE",
    show_default=True,
    callback=_share_cache,
    help="Corpora, scores, latents, assets. Also from BENCH_CACHE.",
)
folders = _group(
    cache,
    click.option("--runs", type=types.FOLDER, default="runs", show_default=True, help="Records of runs."),
    click.option("--reports", type=types.FOLDER, default="reports", show_default=True, help="Rendered reports."),
)

# -- what trains -------------------------------------------------------------------------------------------------------

backbone = click.option("--backbone", help="tiny-sd3, a hub id, or a local diffusers folder of the SD3 family.")
reward = click.option(
    "--reward", help="Metric that is the reward; default: the one a subset was cut by, else aesthetic."
)
preferences = click.option(
    "--preferences", help="Corpus of preference pairs; default: the one that goes with the corpus."
)
holdout = click.option("--holdout", type=int, help="Held-out pairs, for exposure bias; default: fresh ones, if any.")
revision = click.option("--revision", help="Branch, tag or commit of a hub id.")
offline = click.option("--offline", is_flag=True, default=None, help="Use the hub's cache alone.")
max_sequence_length = click.option("--max-sequence-length", type=int, help="T5 tokens; default: the backbone's.")
model = _group(
    revision,
    offline,
    click.option("--resolution", type=int, help="Side of a training picture in pixels; default: the suite's."),
    max_sequence_length,
    click.option("--buckets", "aspect_buckets", is_flag=True, default=None, help="Keep aspect ratios, in buckets."),
    click.option("--text-cache-limit", metavar="SIZE", help="Cache text embeddings up to this, e.g. 200GB."),
)

# -- how it is computed ------------------------------------------------------------------------------------------------


def _trackers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return () if value == "none" else types.names(ctx, param, value)


dtype = click.option("--dtype", help="auto, bfloat16 or float32, of matrix products; weights that train stay float32.")
evaluation_batch = click.option("--evaluation-batch", type=int, help="Images sampled together in evaluations.")
computing = _group(
    dtype,
    click.option(
        "--micro-batch",
        type=types.ROWS,
        help="Samples per forward with a graph: lowers memory, changes no result. auto: the most that fit the GPU.",
    ),
    click.option("--gradient-checkpointing", is_flag=True, default=None, help="Less memory, a third more time."),
    click.option("--compile", is_flag=True, default=None, help="torch.compile the transformer's blocks."),
    click.option("--adam-8bit", "adam_8bit", is_flag=True, default=None, help="Optimizer states in 8 bits."),
    evaluation_batch,
    click.option("--sharding", help="ddp or fsdp, where several processes share a full fine-tune."),
    click.option("--trackers", callback=_trackers, help="tensorboard, wandb, or none."),
)

# -- where it is computed ----------------------------------------------------------------------------------------------

LAUNCHING = ("processes", "nodes", "gpus_per_node", "partition", "account", "time_minutes", "cluster", "wait")
"""Options that are launcher settings of the same name."""
launching = _group(
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
    click.option(
        "--minutes", "time_minutes", type=int, help="Time limit of a Slurm job; at its end the job is queued again."
    ),
    click.option("--cluster", help="slurm, or local: submitit's stand-in on this machine."),
    click.option("--wait/--no-wait", "wait", default=None, help="Wait for the Slurm jobs, or print their ids."),
    click.option("--launch-file", type=types.PATH, help="TOML file of launcher settings; flags override it."),
    click.option("--sbatch", multiple=True, metavar="OPTION=VALUE", help="A further sbatch option; repeatable."),
)

PLANNING = ("utilisation", "peak_tflops", "gpus")
"""Options that are assumptions of a dry run."""
planning = _group(
    click.option("--dry-run", is_flag=True, help="Start nothing; print jobs, hours, memory, disk, what is missing."),
    click.option(
        "--utilisation",
        type=types.Number(0, 1, min_open=True),
        help="Model FLOPs utilisation that a dry run assumes; default: 0.45.",
    ),
    click.option(
        "--peak-tflops",
        type=types.Number(0, MOST_TFLOPS, min_open=True),
        help="Peak of the GPU that a dry run assumes; default: 989.",
    ),
    click.option("--gpus", type=click.IntRange(1, MOST_GPUS), help="GPUs that share a job in a dry run; default: 8."),
)


def machine(launcher: str, flags: dict[str, Any], file: Path | None, sbatch: Sequence[str]) -> LaunchSettings:
    """What a launcher takes of the machine, of the options in ``launching``. BenchError for one that it does not read.

    Args:
        flags: of ``LAUNCHING``.
    """
    from bench.launch.settings import check_read, read_settings

    check_read(launcher, flags | {"sbatch": sbatch})
    if file is not None and launcher == "local":
        raise BenchError("--launcher local reads no --launch-file; take another launcher, or leave the file out")
    return read_settings(file, flags, sbatch)


def taken(flags: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """These of a command's options, which are out of ``flags`` then."""
    return {name: flags.pop(name) for name in names}
