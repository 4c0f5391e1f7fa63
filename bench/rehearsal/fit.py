"""Which GPU a job fits, and the largest micro-batch that fits one: from what rehearsals took.

Forwards and backwards grow with the micro-batch in a line, which two rehearsals give; nothing else grows with it. What
the optimizer holds follows from the parameters that train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from bench.machine.engine import REPLICATION
from bench.rehearsal.results import Part, Rehearsal, Setting

GIB = 2**30

GPUS = (24, 40, 48, 80, 141)
"""GPUs by the GB on their label, each of 10^9 bytes: the least that the label promises. Some have more: torch sees
23.64 GiB of an RTX 4090, where 24 GB are 22.35."""

ROOM, SPLIT = GIB, 0.05
"""What a rehearsal does not see: CUDA's context, workspaces of kernels and NCCL's buffers, about 1 GiB; and memory that
lies in pieces too small to be used, 5 % (this project's choice, until a GPU says better: perf/rehearsal_on_gpu.py)."""

MOST = 4096
"""No larger micro-batch is looked for."""

STATES, STATES_8BIT = 8.0, 2.0 + 2 * 4 / 256
"""Bytes of AdamW's two states for each parameter: float32; or 8 bits, and a float32 scale for each block of 256
(bitsandbytes, ``functional.quantize_blockwise``)."""


def needed(peak: int) -> int:
    """Bytes that a GPU must have for a peak of the rehearsal: with the margin."""
    return round(peak * (1 + SPLIT)) + ROOM


def fits(peak: int) -> dict[int, bool]:
    """Of each GPU in ``GPUS``, whether it has the memory."""
    return {label: needed(peak) <= label * 10**9 for label in GPUS}


@dataclass(frozen=True)
class Offer:
    """The largest micro-batch under a setting; 0: not one row fits."""

    setting: Setting
    micro_batch: int
    peak: int


def offers(whole: Rehearsal, short: Sequence[Rehearsal], memory: int) -> list[Offer]:
    """The largest micro-batch that fits ``memory`` bytes, with and without checkpointing, sharding and 8-bit Adam.

    Args:
        whole: of the stage, under the experiment's own setting.
        short: of its forwards and backwards, as ``stages.short_settings`` asks for.
    """
    by: dict[Setting, list[Rehearsal]] = {}
    for each in short:
        by.setdefault(replace(each.setting, micro_batch=None), []).append(each)
    out = []
    for setting, eight in product(by, (False, True)):
        if eight and setting.sharding == "fsdp":  # bitsandbytes' kernels take whole tensors
            continue
        pair = sorted(by[setting], key=lambda each: each.setting.micro_batch or 0)
        if any(each.problem for each in pair) or len(pair) < 2:
            continue
        line = _Line(whole, pair[0], pair[1], replace(setting, adam_8bit=eight))
        rows = line.largest(memory)
        out.append(Offer(line.setting, rows, line.peak(rows or 1)))
    return out


def largest(whole: Rehearsal, short: Sequence[Rehearsal], memory: int) -> int | None:
    """The largest micro-batch under the rehearsal's own setting. 0: not one row fits; None: ``short`` does not say."""
    own = replace(whole.setting, micro_batch=None, sharding=whole.sharding)
    return next((offer.micro_batch for offer in offers(whole, short, memory) if offer.setting == own), None)


class _Line:
    """What a setting takes, by micro-batch."""

    GROWING = ("activations", "text", "other")

    def __init__(self, whole: Rehearsal, one: Rehearsal, two: Rehearsal, setting: Setting) -> None:
        self.setting = setting
        spread = setting.sharding == "fsdp" and setting.processes > 1
        shards = setting.processes if spread else 1
        trained = whole.trained
        self._states = round((STATES_8BIT if setting.adam_8bit else STATES) * trained / shards)
        first, second = _part(one, "first step"), _part(two, "first step")
        self._phases = []
        for phase in ("forward", "backward"):
            few, more = first.phases.get(phase, {}), second.phases.get(phase, {})
            fixed = sum(few.values()) - self._sum(few)
            self._phases.append((fixed, self._sum(few), max(self._sum(more) - self._sum(few), 0)))
        replicas = setting.processes > 1 and not spread
        setup = _part(one, "setup")
        still = setup.left - (4 * trained if replicas else 0)  # without the buckets of DDP
        buckets = 4 * trained if replicas and not REPLICATION.get("gradient_as_bucket_view") else 0
        step = _part(whole, "step")
        own = whole.setting.processes if whole.sharding == "fsdp" else 1
        moment = step.phases.get("update", {}).get("optimizer", 0) - self._states_of(whole, own)
        moment = 0 if setting.adam_8bit else max(moment, 0) * own // shards
        self._update = still + buckets + 4 * trained // shards + self._states + moment
        self._still, self._setup = still + buckets + self._states, setup.peak
        self._apart = max(
            (self._moving(part) for part in whole.parts if part.name in ("step", "evaluation")), default=0
        )

    def _sum(self, kinds: Mapping[str, int]) -> int:
        return sum(kinds.get(kind, 0) for kind in self.GROWING)

    @staticmethod
    def _states_of(whole: Rehearsal, shards: int) -> int:
        return round((STATES_8BIT if whole.setting.adam_8bit else STATES) * whole.trained / shards)

    def _moving(self, part: Part) -> int:
        """What sampling and decoding without a graph, encoding and scoring take beside what is always there."""
        most = 0
        for phase, kinds in part.phases.items():
            if phase in ("forward without a graph", "decode"):
                most = max(most, sum(kinds.get(kind, 0) for kind in (*self.GROWING, "VAE")))
            elif phase in ("text", "reward"):  # on threads of their own, whatever the micro-batch
                most = max(most, sum(kinds.values()) - part.left)
        return most

    def peak(self, rows: int) -> int:
        """Bytes with micro-batches of ``rows``."""
        lines = [fixed + self._states + base + (rows - 1) * each for fixed, base, each in self._phases]
        return max(*lines, self._update, self._still + self._apart, self._setup)

    def largest(self, memory: int) -> int:
        """Rows of the largest micro-batch that fits; 0: none does."""
        low, high = 0, MOST
        while low < high:
            middle = (low + high + 1) // 2
            if needed(self.peak(middle)) <= memory:
                low = middle
            else:
                high = middle - 1
        return low


def _part(rehearsal: Rehearsal, name: str) -> Part:
    part = rehearsal.part(name)
    assert part is not None
    return part
