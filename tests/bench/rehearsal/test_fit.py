"""Which GPU is large enough, against pencil and paper."""

from __future__ import annotations

from bench.rehearsal.fit import GIB, ROOM, SPLIT, fits, needed, offers
from bench.rehearsal.results import Part, Rehearsal, Setting, from_json, to_json

TRAINED = 100 * 2**20
MIB = 2**20


def part(name: str, phases: dict[str, dict[str, int]]) -> Part:
    kinds = max(phases.values(), key=lambda each: sum(each.values()))
    return Part(name, sum(kinds.values()), "mm", "here:1", kinds, phases, 0, 1, 0, 0)


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


def test_a_gpu_needs_the_margin_too() -> None:
    assert needed(0) == ROOM
    assert needed(20 * GIB) == round(20 * GIB * (1 + SPLIT)) + ROOM
    assert fits(20 * GIB) == {24: True, 40: True, 48: True, 80: True, 141: True}
    assert fits(22 * GIB) == {24: False, 40: True, 48: True, 80: True, 141: True}


def test_the_largest_micro_batch_is_where_the_line_meets_the_memory() -> None:
    found = {offer.setting.adam_8bit: offer for offer in offers(whole(), [short(1), short(2)], needed(2610 * MIB))}
    # 400 + 400 + 800 of states + 10 + 50 a row: 20 rows take 2,610 MiB. The update takes 2,000.
    assert found[False].micro_batch == 20
    assert found[False].peak == 2610 * MIB
    # States of 203 MiB leave room for 597 MiB more.
    assert found[True].micro_batch == 20 + (800 - 203) // 50


def test_the_update_can_be_what_does_not_fit() -> None:
    found = {offer.setting.adam_8bit: offer for offer in offers(whole(), [short(1), short(2)], needed(1900 * MIB))}
    assert found[False].micro_batch == 0
    assert found[False].peak == 2000 * MIB
    assert found[True].micro_batch > 0  # which takes nothing for a moment


def test_each_setting_has_its_own_line() -> None:
    grid = [short(1), short(2), short(1, True, 5 * MIB), short(2, True, 5 * MIB)]
    found = [offer for offer in offers(whole(), grid, needed(2610 * MIB)) if not offer.setting.adam_8bit]
    assert {offer.setting.gradient_checkpointing: offer.micro_batch for offer in found} == {False: 20, True: 200}


def test_what_was_found_is_read_back() -> None:
    assert from_json(to_json(whole())) == whole()
