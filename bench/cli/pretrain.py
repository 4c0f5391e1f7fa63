"""``bench pretrain``: train the embedded backbone anew."""

from __future__ import annotations

from pathlib import Path

import click

from bench import registry
from bench.cli import types
from bench.errors import BenchError
from bench.machine.bounds import MOST_TRAINING_STEPS


@click.command()
@click.option(
    "--stage", type=click.Choice(["vae", "clip", "policy", "quality", "all"]), default="all", show_default=True
)
@click.option("--out", type=types.FOLDER, default="cache/pretrain", show_default=True)
@click.option(
    "--steps",
    type=click.IntRange(1, MOST_TRAINING_STEPS),
    help="Training steps of each stage, instead of the recipe's.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
def pretrain(stage: str, out: Path, steps: int | None, device: str) -> None:
    """Train the embedded backbone and its judge anew: VAE, CLIP, then the flow model.

    A stage that was killed goes on where it was when the same command is given again.
    """
    import torch

    from bench.machine.engine import check_dtype

    check_dtype(torch.float32, torch.device(device))
    if stage == "quality" and steps is not None:
        raise BenchError("--stage quality measures and trains nothing; leave --steps out")
    for name in ("vae", "clip", "policy", "quality") if stage == "all" else (stage,):
        registry.load("recipes", name)(out, steps, device)
