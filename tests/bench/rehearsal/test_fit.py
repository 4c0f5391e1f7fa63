"""Which GPU is large enough, against pencil and paper."""

from __future__ import annotations

from dataclasses import replace

from rehearsals import MIB, short, whole

from bench.rehearsal.fit import GIB, ROOM, SPLIT, fits, needed, offers
from bench.rehearsal.results import from_json, to_json


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


def test_what_a_setup_frees_again_is_not_held_later() -> None:
    """Weights that are read whole and then rounded, or cut into shares."""
    pair = []
    for one in (short(1), short(2)):
        setup = replace(one.parts[0], peak=3000 * MIB, kinds={"weights": 3000 * MIB})
        pair.append(replace(one, parts=(setup, one.parts[1])))
    found = {offer.setting.adam_8bit: offer for offer in offers(whole(), pair, needed(3100 * MIB))}
    assert found[False].micro_batch == 29  # (3100 - 1610) / 50
    assert found[False].peak == 3060 * MIB
    assert offers(whole(), pair, needed(2900 * MIB))[0].micro_batch == 0


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
