"""``bench pretrain``: train the embedded backbone anew."""

from __future__ import annotations

from pathlib import Path

import click

from bench import registry
from bench.cli import types
from bench.machine.bounds import MOST_TRAINING_MINUTES


@click.command()
@click.option(
    "--stage", type=click.Choice(["vae", "clip", "policy", "quality", "all"]), default="all", show_default=True
)
@click.option("--out", type=types.FOLDER, default="cache/pretrain", show_default=True)
@click.option(
    "--minutes",
    type=types.Number(0, MOST_TRAINING_MINUTES, min_open=True),
    help="Training time of the stage, instead of the recipe's.",
)
def pretrain(stage: str, out: Path, minutes: float | None) -> None:
    """Train the embedded backbone and its judge anew: VAE, CLIP, then the flow model. Two CPU cores need 1.5 hours."""
    for name in ("vae", "clip", "policy", "quality") if stage == "all" else (stage,):
        registry.load("recipes", name)(out, minutes)
