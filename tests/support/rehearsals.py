"""Rehearsals of a job whose memory is easily added up."""

from __future__ import annotations

from bench.rehearsal.results import Part, Rehearsal, Setting

TRAINED = 100 * 2**20
MIB = 2**20


def part(name: str, phases: dict[str, dict[str, int]]) -> Part:
    kinds = max(phases.values(), key=lambda each: sum(each.values()))
    peak = sum(kinds.values())
    return Part(name, peak, "mm", "here:1", kinds, phases, left=peak, operators=1, waits=0, host_bytes=0)


def short(rows: int, checkpointing: bool = False, activations: int = 50 * MIB) -> Rehearsal:
    """Weights of 400 MiB, gradients of as much, and activations by row."""
    backward = {"weights": 400 * MIB, "gradients": 400 * MIB, "activations": 10 * MIB + rows * activations}
    phases = {"forward": backward, "backward": backward}
    setting = Setting(1, "ddp", rows, checkpointing)
    parts = part("setup", {"setup": {"weights": 400 * MIB}}), part("first step", phases)
    return Rehearsal("sft", "sft", setting, TRAINED, TRAINED, parts, short=True)


def whole() -> Rehearsal:
    """An update that needs the states of 800 MiB and 400 MiB for a moment; a decode that needs 300 MiB."""
    update = {"weights": 400 * MIB, "gradients": 400 * MIB, "optimizer": 1200 * MIB}
    decode = {"weights": 400 * MIB, "optimizer": 800 * MIB, "VAE": 300 * MIB}
    parts = part("step", {"update": update}), part("evaluation", {"decode": decode})
    return Rehearsal("sft", "sft", Setting(1, "ddp", 4), TRAINED, TRAINED, parts)
