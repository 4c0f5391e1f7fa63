"""Prints rehearsals: a few lines and tables for each stage of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.rehearsal.fit import GIB, Offer, fits, needed, offers
from bench.rehearsal.results import Place, Rehearsal, Setting, to_json

WIDE = 160
"""Columns where the output is no terminal, so that no line is broken for a reader or for grep."""
SHOWN = 5
"""Places of a kind that are printed; the JSON has all."""


def grouped(rehearsals: Sequence[Rehearsal]) -> list[tuple[Rehearsal, list[Rehearsal]]]:
    """Each stage's rehearsal, and what forwards and backwards take under other settings."""
    out: list[tuple[Rehearsal, list[Rehearsal]]] = []
    for rehearsal in rehearsals:
        if rehearsal.short:
            out[-1][1].append(rehearsal)
        else:
            out.append((rehearsal, []))
    return out


def show(name: str, rehearsals: Sequence[Rehearsal], memory: int | None) -> None:
    """Print rehearsals.

    Args:
        memory: bytes for which the largest micro-batches are printed; None: none is.
    """
    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, markup=False, width=WIDE, color_system=None)
    console.print(f"{name}: rehearsed on a pretended GPU; nothing is trained")
    for whole, short in grouped(rehearsals):
        console.print()
        _stage(console, whole)
        if memory is not None and not whole.problem:
            _offers(console, offers(whole, short, memory), memory)


def document(name: str, rehearsals: Sequence[Rehearsal], memory: int | None) -> dict[str, Any]:
    """The same as JSON, with every place."""
    stages = []
    for whole, short in grouped(rehearsals):
        values = to_json(whole) | {
            "needed": needed(whole.peak),
            "fits": {str(k): v for k, v in fits(whole.peak).items()},
        }
        if memory is not None and not whole.problem:
            values["largest"] = [
                {"micro_batch": offer.micro_batch, "peak": offer.peak, **_choices(offer.setting)}
                for offer in offers(whole, short, memory)
            ]
        stages.append(values)
    return {"name": name, "memory": memory, "stages": stages}


def _choices(setting: Setting) -> dict[str, Any]:
    return {
        "gradient_checkpointing": setting.gradient_checkpointing,
        "sharding": setting.sharding,
        "adam_8bit": setting.adam_8bit,
    }


def _stage(console: Console, whole: Rehearsal) -> None:
    called = whole.row if whole.row == whole.stage else f"{whole.row}, stage {whole.stage}"
    trained = "all train" if whole.trained == whole.parameters else f"{whole.trained / 1e6:,.1f} M train"
    console.print(f"{called}: {whole.parameters / 1e9:.3f} B parameters, {trained}; {_setting(whole.setting)}")
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, header_style="bold")
    for heading in ("part", "peak", "at"):
        table.add_column(heading, justify="right" if heading == "peak" else "left", no_wrap=heading != "at")
    for heading in ("operators", "waits", "from the host"):
        table.add_column(heading, justify="right")
    for part in whole.parts:
        table.add_row(
            part.name, _gib(part.peak), f"{part.at}, {part.where}", f"{part.operators:,}", f"{part.waits:,}",
            f"{part.host_bytes / 2**20:,.0f} MiB",
        )  # fmt: skip
    console.print(table)
    if whole.reward:
        console.print(f"rewarded by {whole.reward}", soft_wrap=True)
    if whole.problem:
        console.print(f"it ends at {whole.problem}", soft_wrap=True, style="bold")
    dearest = max(whole.parts, key=lambda part: part.peak, default=None)
    if dearest is None:
        return
    kinds = sorted(dearest.kinds.items(), key=lambda item: -item[1])
    console.print(f"at the peak: {', '.join(f'{kind} {_gib(size)}' for kind, size in kinds)}", soft_wrap=True)
    if not whole.problem:
        fit = ", ".join(f"{label} GB {'yes' if yes else 'no'}" for label, yes in fits(whole.peak).items())
        console.print(f"with the margin {_gib(needed(whole.peak))}; fits a GPU of {fit}")
    step = whole.part("step")
    if step is not None:
        _places(console, "waits of a step", step.waiting)
        _places(console, "devices mixed in a step", step.devices)
        _places(console, "dtypes mixed in a step", step.dtypes)


def _places(console: Console, what: str, places: Sequence[Place]) -> None:
    if places:
        words = [f"{place.where} {place.what} ({place.count:,})" for place in places[:SHOWN]]
        more = [f"and {len(places) - SHOWN} more places"] if len(places) > SHOWN else []
        console.print(f"{what}: {'; '.join([*words, *more])}", soft_wrap=True)


def _offers(console: Console, largest: Sequence[Offer], memory: int) -> None:
    console.print(f"largest micro-batch in {_gib(memory)}, with the margin:")
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, header_style="bold")
    for heading in ("checkpointing", "sharding", "Adam", "micro-batch", "peak"):
        table.add_column(heading, justify="right" if heading in ("micro-batch", "peak") else "left")
    for offer in largest:
        setting = offer.setting
        table.add_row(
            "yes" if setting.gradient_checkpointing else "no",
            setting.sharding if setting.processes > 1 else "-",
            "8 bits" if setting.adam_8bit else "float32",
            f"{offer.micro_batch:,}" if offer.micro_batch else "none fits",
            _gib(offer.peak),
        )
    console.print(table)


def _setting(setting: Setting) -> str:
    words = [f"{setting.processes} processes, {setting.sharding}" if setting.processes > 1 else "1 process"]
    words.append(f"micro-batch {setting.micro_batch or 'the whole share'}")
    words += ["checkpointing"] if setting.gradient_checkpointing else []
    words += ["8-bit Adam"] if setting.adam_8bit else []
    return ", ".join(words)


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.1f} MiB"
