"""GenEval's scoring rule: given what a detector found, is the picture right?

Source: ``evaluation/evaluate_images.py`` of djghosh13/geneval @ af4902f (rule re-stated, not copied).
The rule is the same whether the boxes come from Mask2Former on photographs or from exact detection on shapes.
"""

from __future__ import annotations

import math
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
    found = set()
    if dx < -0.5:
        found.add("left of")
    if dx > 0.5:
        found.add("right of")
    if dy < -0.5:
        found.add("above")
    if dy > 0.5:
        found.add("below")
    return found


def is_correct(
    detections: Sequence[Detection], include: Sequence[Mapping[str, Any]], exclude: Sequence[Mapping[str, Any]] = ()
) -> bool:
    """True if every ``include`` clause holds and no ``exclude`` clause does.

    For each include clause the ``count`` most confident objects of the class must exist, have the colour, and stand
    in the relation to every object of the clause it points at; an exclude clause fails at ``count`` objects.
    """
    by_class: dict[str, list[Detection]] = {}
    for found in sorted(detections, key=lambda d: -d.confidence):
        by_class.setdefault(found.name, []).append(found)
    correct = True
    groups: list[list[Detection] | None] = []
    for clause in include:
        objects = by_class.get(clause["class"], [])[: clause["count"]]
        matched = len(objects) == clause["count"]
        if matched and "color" in clause:
            matched = all(o.color == clause["color"] for o in objects)
        if matched and "position" in clause:
            relation, target = clause["position"]
            others = groups[target]
            matched = others is not None and all(relation in relations(o, t) for o in objects for t in others)
        correct = correct and matched
        groups.append(objects if matched else None)
    return correct and not any(len(by_class.get(c["class"], [])) >= c["count"] for c in exclude)
