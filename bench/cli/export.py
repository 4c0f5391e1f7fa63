"""``bench export``: write what a job trained."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli import types
from bench.cli.printing import say


@click.command()
@click.argument("job", type=types.PATH)
@click.option("--out", type=types.FOLDER, required=True, help="Folder to write to: empty, or not there.")
@click.option("--backbone", help="Folder or hub id of the backbone, where it is not where it was trained from.")
@click.option("--transformer-only", is_flag=True, help="Leave the backbone's other components out.")
def export(job: Path, out: Path, backbone: str | None, transformer_only: bool) -> None:
    """Write what JOB trained as people load it: a diffusers pipeline or a LoRA adapter, with a model card.

    \b
        bench export runs/high_aesthetic/sft--high_aesthetic--s0 --out exports/sft
    A pipeline's other components are hard-linked where the disk allows it and copied elsewhere; T5-XXL has 10 GB.
    """
    from bench.export.folder import export_job

    export_job(job, out, backbone=backbone, transformer_only=transformer_only, say=say)
    say(f"export: {out}")
