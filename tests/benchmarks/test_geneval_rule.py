"""GenEval's rule: clauses by hand, and relations against an independent numpy statement of the protocol's formula."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.geneval_rule import (
    Detection,
    in_words,
    is_correct,
    is_strictly_correct,
    relations,
    reward,
    reward_released,
)


def box(name: str, x: float = 32, y: float = 32, color: str | None = "red", conf: float = 0.9) -> Detection:
    return Detection(name, color, (x - 8, y - 8, x + 8, y + 8), conf)


def one(name: str, count: int = 1, **more: object) -> dict[str, object]:
    return {"class": name, "count": count, **more}


# -- include and exclude -----------------------------------------------------------------------------------------------


def test_an_object_must_be_there():
    assert is_correct([box("star")], [one("star")])
    assert not is_correct([box("heart")], [one("star")])
    assert not is_correct([], [one("star")])


def test_every_clause_must_hold():
    clauses = [one("star"), one("heart")]
    assert is_correct([box("heart"), box("star")], clauses)
    assert not is_correct([box("star"), box("star")], clauses)


@pytest.mark.parametrize(("found", "right"), [(1, False), (2, True), (3, False), (4, False)])
def test_counting_caps_with_exclude(found, right):
    stars = [box("star", x=10 * i) for i in range(found)]
    assert is_correct(stars, [one("star", 2)], [one("star", 3)]) is right


def test_without_exclude_more_is_right_too():
    assert is_correct([box("star")] * 5, [one("star", 2)])


def test_exclude_looks_at_its_own_class_only():
    assert is_correct([box("star"), box("heart"), box("heart")], [one("star")], [one("star", 2)])


def test_colours_must_match():
    assert is_correct([box("star", color="red")], [one("star", color="red")])
    assert not is_correct([box("star", color="blue")], [one("star", color="red")])
    assert not is_correct([box("star", color=None)], [one("star", color="red")])
    mixed = [box("star", color="blue"), box("heart", color="red")]
    assert not is_correct(mixed, [one("star", color="red"), one("heart")])


@pytest.mark.parametrize("confident", ["red", "blue"])
def test_only_the_most_confident_objects_are_looked_at(confident):
    stars = [box("star", color=c, conf=0.9 if c == confident else 0.5) for c in ("red", "blue")]
    assert is_correct(stars, [one("star", color="red")]) is (confident == "red")
    assert is_correct(stars[::-1], [one("star", color="red")]) is (confident == "red")


def test_all_counted_objects_need_the_colour():
    two = [box("star", color="red"), box("star", color="blue")]
    assert not is_correct(two, [one("star", 2, color="red")])
    assert is_correct([box("star"), box("star")], [one("star", 2, color="red")])


@pytest.mark.parametrize("place", ["left of", "right of", "above", "below"])
def test_positions_are_those_of_the_clause_towards_its_target(place):
    spots = {"left of": (10, 32), "right of": (54, 32), "above": (32, 10), "below": (32, 54)}
    clauses = [one("heart"), one("star", position=(place, 0))]
    for where, (x, y) in spots.items():
        assert is_correct([box("heart"), box("star", x, y)], clauses) is (where == place)


def test_a_position_towards_a_target_that_failed_is_wrong():
    clauses = [one("heart", color="blue"), one("star", position=("left of", 0))]
    assert not is_correct([box("heart", color="red"), box("star", 10)], clauses)
    assert not is_correct([box("star", 10)], clauses)


def test_every_pair_must_stand_in_the_relation():
    clauses = [one("heart", 2), one("star", position=("left of", 0))]
    assert is_correct([box("heart", 40), box("heart", 55), box("star", 10)], clauses)
    assert not is_correct([box("heart", 40), box("heart", 2), box("star", 20)], clauses)


# -- relations ---------------------------------------------------------------------------------------------------------


def reference(a: np.ndarray, b: np.ndarray) -> set[str]:
    """The protocol: offset of centres shrunk by .1 (dimensions of both), over its norm before shrinking, beyond ±.5."""
    a, b = a.reshape(2, 2), b.reshape(2, 2)
    offset = a.mean(0) - b.mean(0)
    shrunk = np.sign(offset) * np.maximum(np.abs(offset) - 0.1 * (np.ptp(a, 0) + np.ptp(b, 0)), 0)
    if (np.abs(shrunk) < 1e-3).all():
        return set()
    x, y = shrunk / np.linalg.norm(offset)
    names = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, holds in names.items() if holds}


def test_relations_follow_the_protocol_on_random_boxes():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(3000):
        corners = rng.uniform(0, 64, (2, 2, 2))
        a, b = np.sort(corners, 1).reshape(2, 4)
        found = relations(Detection("a", None, tuple(a), 1.0), Detection("b", None, tuple(b), 1.0))
        assert found == reference(a, b)
        seen.add(frozenset(found))
    assert len(seen) == 9  # none, four sides, four corners


def test_relations_mirror_when_the_objects_change_places():
    mirror = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for x, y in [(10, 32), (20, 20), (50, 44), (33, 32), (32, 32)]:
        forth, back = relations(box("a", x, y), box("b")), relations(box("b"), box("a", x, y))
        assert {mirror[name] for name in forth} == back


def test_boxes_that_hardly_differ_stand_in_no_relation():
    assert relations(box("a", 32, 32), box("b", 32, 32)) == set()
    assert relations(box("a", 35, 32), box("b", 32, 32)) == set()  # 3 px < .1 (16 + 16)


def test_the_threshold_by_hand():
    """Boxes of 16: an offset d is shrunk by 3.2 and stays above half of itself from d = 6.4 on."""
    assert relations(box("a", 32 + 6.5), box("b")) == {"right of"}
    assert relations(box("a", 32 + 6.3), box("b")) == set()


# -- exact counts, and partial credit ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("found", "strict", "credit"), [(0, False, 0), (1, False, 0.5), (2, True, 1), (3, False, 0.5)])
def test_counts_are_exact(found, strict, credit):
    stars = [box("star", x=10 * i) for i in range(found)]
    assert is_strictly_correct(stars, [one("star", 2)]) is strict
    assert reward(stars, [one("star", 2)]) == reward_released(stars, [one("star", 2)]) == credit


def test_far_too_many_cost_more_than_none():
    assert reward([box("star")] * 16, [one("star")]) == -14
    assert reward([], [one("star")]) == 0


def test_other_objects_are_not_looked_at():
    assert is_strictly_correct([box("star"), box("heart")], [one("star")])
    assert reward([box("star"), box("heart")], [one("star")]) == 1


def test_a_colour_has_a_part_of_its_own():
    clause = [one("star", 2, color="red")]
    assert reward([box("star"), box("star", color="blue")], clause) == pytest.approx((1 + 0.5) / 2)
    assert not is_strictly_correct([box("star"), box("star", color="blue")], clause)
    assert reward([box("star"), box("star")], clause) == 1


def test_colour_and_position_are_nothing_where_the_count_is_wrong():
    assert reward([box("star")], [one("star", 2, color="red")]) == pytest.approx((0.5 + 0) / 2)
    clauses = [one("heart"), one("star", 2, position=("left of", 0))]
    assert reward([box("heart"), box("star", 10)], clauses) == pytest.approx((1 + 0.5 + 0) / 3)
    both = [one("heart"), one("star", 2, color="red", position=("left of", 0))]
    assert reward([box("heart"), box("star", 10)], both) == pytest.approx((1 + 0.5 + 0) / 3)


def test_a_wrong_position_is_nothing_and_as_released_something():
    clauses = [one("heart"), one("star", position=("left of", 0))]
    right, wrong = ([box("heart"), box("star", x)] for x in (10, 54))
    assert reward(right, clauses) == reward_released(right, clauses) == 1
    assert reward(wrong, clauses) == pytest.approx((1 + 1 + 0) / 3)
    assert reward_released(wrong, clauses) == pytest.approx((1 + 1 + 0 + 1) / 4)
    assert is_strictly_correct(right, clauses)
    assert not is_strictly_correct(wrong, clauses)


def test_a_position_towards_a_target_that_failed_is_nothing_in_both():
    clauses = [one("heart", 2), one("star", position=("left of", 0))]
    found = [box("heart"), box("star", 10)]
    assert reward(found, clauses) == reward_released(found, clauses) == pytest.approx((0.5 + 1 + 0) / 3)


def test_a_position_is_not_looked_at_where_the_colour_is_wrong():
    clauses = [one("heart"), one("star", color="red", position=("left of", 0))]
    found = [box("heart"), box("star", 54, color="blue")]
    assert reward(found, clauses) == reward_released(found, clauses) == pytest.approx((1 + 1 + 0) / 3)


# -- words -------------------------------------------------------------------------------------------------------------


def test_words_count_what_is_alike_and_begin_with_the_surest():
    found = [
        box("star", conf=0.8),
        box("ring", color="green", conf=0.9),
        box("star", x=9, conf=0.5),
        box("cat", color=None, conf=0.4),
    ]
    assert in_words(found, [one("star")]) == "green ring, 2 red star, cat"
    assert in_words([], [one("star")]) == "nothing"


def test_words_say_how_things_stand_where_a_clause_asks():
    clauses = [one("star"), one("ring", position=("left of", 0))]
    assert in_words([box("star", x=40), box("ring", x=10)], clauses) == "red star, red ring; ring left of star"
    assert in_words([box("star"), box("ring", y=10)], clauses) == "red star, red ring; ring above star"
    assert in_words([box("star"), box("ring")], clauses) == "red star, red ring; ring close to star"
    assert in_words([box("ring")], clauses) == "red ring"
