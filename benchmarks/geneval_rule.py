"""GenEval's scoring rule: given what a detector found, is the picture right, and how nearly?

Sources, re-stated and not copied: ``evaluation/evaluate_images.py`` of djghosh13/geneval @ af4902f for ``is_correct``;
``reward_server/gen_eval.py`` of yifan123/reward-server @ 92ac29f, which Flow-GRPO trains with, for what asks for exact
counts. The rule is the same whether the boxes come from Mask2Former on photographs or from exact detection on shapes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

POSITION_THRESHOLD = 0.1
"""Share of both boxes' dimensions by which an offset is shrunk before it is compared (GenEval's value)."""


@dataclass(frozen=True)
class Detection:
    """One object: class, colour name (None if unknown), box (x0, y0, x1, y1) in pixels, confidence in [0, 1]."""

    name: str
    color: str | None
    box: tuple[float, float, float, float]
    confidence: float


def relations(a: Detection, b: Detection) -> set[str]:
    """Where ``a`` stands relative to ``b``: a subset of {left of, right of, above, below}.

    The offset of the centres is shrunk by 0.1 x (dimensions of both), then divided by its norm *before* shrinking;
    a component beyond ±0.5 counts.
    """
    ax0, ay0, ax1, ay1 = a.box
    bx0, by0, bx1, by1 = b.box
    offset = ((ax0 + ax1 - bx0 - bx1) / 2, (ay0 + ay1 - by0 - by1) / 2)
    reach = ((ax1 - ax0) + (bx1 - bx0), (ay1 - ay0) + (by1 - by0))
    norm = math.hypot(*offset)
    shrunk = [math.copysign(max(abs(o) - POSITION_THRESHOLD * r, 0.0), o) for o, r in zip(offset, reach, strict=True)]
    if norm == 0 or all(abs(v) < 1e-3 for v in shrunk):
        return set()
    dx, dy = shrunk[0] / norm, shrunk[1] / norm
    relations = set()
    if dx < -0.5:
        relations.add("left of")
    if dx > 0.5:
        relations.add("right of")
    if dy < -0.5:
        relations.add("above")
    if dy > 0.5:
        relations.add("below")
    return relations


def is_correct(
    detections: Sequence[Detection], include: Sequence[Mapping[str, Any]], exclude: Sequence[Mapping[str, Any]] = ()
) -> bool:
    """True if every ``include`` clause holds and no ``exclude`` clause does.

    For each include clause the ``count`` most confident objects of the class must exist, have the colour, and stand
    in the relation to every object of the clause it points at; an exclude clause fails at ``count`` objects.
    """
    by_class = _by_class(detections)
    correct = True
    groups: list[list[Detection] | None] = []
    for clause in include:
        objects = by_class.get(clause["class"], [])[: clause["count"]]
        matched = len(objects) == clause["count"]
        if matched and "color" in clause:
            matched = all(o.color == clause["color"] for o in objects)
        if matched and "position" in clause:
            matched = _in_place(objects, clause, groups)
        correct = correct and matched
        groups.append(objects if matched else None)
    return correct and not any(len(by_class.get(c["class"], [])) >= c["count"] for c in exclude)


@dataclass(frozen=True)
class Credit:
    """What one include clause earns where counts must be exact.

    Attributes:
        parts: 1 - |want - found| / want for the count; then for the colour, and 1 or 0 for the position, or a single 0
            for both where the count is wrong. Below 0 where more than twice as many were found.
        matched: everything the clause asks for is so.
        misplaced: only the position is wrong, towards a target that is right.
    """

    parts: tuple[float, ...]
    matched: bool
    misplaced: bool


def credits(detections: Sequence[Detection], include: Sequence[Mapping[str, Any]]) -> list[Credit]:
    """Each include clause's credit. A position is looked at only where count and colour are right."""
    by_class = _by_class(detections)
    groups: list[list[Detection] | None] = []
    result = []
    for clause in include:
        objects, want = by_class.get(clause["class"], []), clause["count"]
        parts = [1 - abs(want - len(objects)) / want]
        matched, misplaced = len(objects) == want, False
        if not matched and ("color" in clause or "position" in clause):
            parts.append(0.0)
        if matched and "color" in clause:
            right = sum(o.color == clause["color"] for o in objects)
            parts.append(1 - abs(want - right) / want)
            matched = right == want
        if matched and "position" in clause:
            matched = _in_place(objects, clause, groups)
            misplaced = not matched and groups[clause["position"][1]] is not None
            parts.append(float(matched))
        groups.append(objects if matched else None)
        result.append(Credit(tuple(parts), matched, misplaced))
    return result


def is_strictly_correct(detections: Sequence[Detection], include: Sequence[Mapping[str, Any]]) -> bool:
    """True if every include clause holds with exactly as many objects as it asks for; exclude has no more to say."""
    return all(credit.matched for credit in credits(detections, include))


def reward(detections: Sequence[Detection], include: Sequence[Mapping[str, Any]]) -> float:
    """Mean of all clauses' parts: 1 where all is right, less the more is wrong."""
    return _mean([part for credit in credits(detections, include) for part in credit.parts])


def reward_released(detections: Sequence[Detection], include: Sequence[Mapping[str, Any]]) -> float:
    """``reward`` as Flow-GRPO's server computes it, where a wrong position adds a 0 to the mean *and then* a 1."""
    return _mean(
        [
            part
            for credit in credits(detections, include)
            for part in (*credit.parts, *((1.0,) if credit.misplaced else ()))
        ]
    )


def in_words(detections: Sequence[Detection], include: Sequence[Mapping[str, Any]]) -> str:
    """What was found, the surest first, as "2 red star, green ring; ring above star" or "nothing".

    Objects of one class and colour are counted. How two classes stand is said where a clause asks it, of the surest
    object of each.
    """
    counts = Counter((d.color, d.name) for d in sorted(detections, key=lambda d: -d.confidence))
    found = [
        " ".join([*([str(n)] if n > 1 else []), *([color] if color else []), name])
        for (color, name), n in counts.items()
    ]
    by_class = _by_class(detections)
    stand = []
    for clause in include:
        if "position" in clause and clause["class"] != (target := include[clause["position"][1]]["class"]):
            for one, other in zip(by_class.get(clause["class"], [])[:1], by_class.get(target, [])[:1], strict=False):
                stand.append(f"{one.name} {' and '.join(sorted(relations(one, other))) or 'close to'} {other.name}")
    return "; ".join([", ".join(found) or "nothing", *stand])


def _mean(parts: Sequence[float]) -> float:
    return sum(parts) / len(parts) if parts else 0.0


def _by_class(detections: Sequence[Detection]) -> dict[str, list[Detection]]:
    """Most confident first."""
    result: dict[str, list[Detection]] = {}
    for detection in sorted(detections, key=lambda d: -d.confidence):
        result.setdefault(detection.name, []).append(detection)
    return result


def _in_place(
    objects: Sequence[Detection], clause: Mapping[str, Any], groups: Sequence[Sequence[Detection] | None]
) -> bool:
    relation, target = clause["position"]
    others = groups[target]
    return others is not None and all(relation in relations(o, t) for o in objects for t in others)
