"""What a scene says and what it shows: captions after GenEval's six tasks, signs, layouts, and a hidden style."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations, product
from typing import Any

import numpy as np

from data_curation.world import vocabulary as V
from data_curation.world.outlines import OUTLINES

SIZE = 64
"""Side of a picture in pixels."""


@dataclass(frozen=True)
class ScenePrompt:
    """A caption and what must be true of its picture, in GenEval's metadata form.

    ``include`` clauses are ``{"class", "count", "color"?, "position"? = (relation, index of the target clause)}``,
    with the caption's ``"size"`` and ``"place"`` where it has them (drawn, but not part of GenEval's rule);
    ``exclude`` clauses cap counts. ``word`` is set for signs instead.
    """

    text: str
    tag: str
    include: tuple[dict[str, Any], ...] = ()
    exclude: tuple[dict[str, Any], ...] = ()
    word: str | None = None

    @property
    def held_out(self) -> bool:
        """True if the caption contains a held-out combination (see ``vocabulary``)."""
        if self.word is not None:
            return self.word in V.TEST_WORDS
        return frozenset(clause["class"] for clause in self.include) in V.HELD_OUT_PAIRS or any(
            (clause.get("color"), clause["class"]) in V.HELD_OUT_BINDINGS
            or (clause["count"], clause["class"]) in V.HELD_OUT_COUNTS
            or (clause.get("size"), clause["class"]) in V.HELD_OUT_SIZES
            or (clause.get("place"), clause["class"]) in V.HELD_OUT_PLACES
            for clause in self.include
        )


@dataclass(frozen=True)
class Thing:
    """One drawn shape: centre and radius in pixels of a 64 px picture."""

    shape: str
    color: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """A prompt with everything the picture needs that the caption does not say.

    ``style`` in [0, 1] goes from flat, off-balance shapes on dull grey to shaded, shadowed, balanced
    shapes on a ground tinted to match. No caption mentions it.

    ``sign_y`` is the height of the middle of a sign's board, in pixels from the top; nothing looks at it where the
    prompt has no word.
    """

    prompt: ScenePrompt
    things: tuple[Thing, ...]
    style: float
    ground_hue: float
    sign_y: float = SIZE / 2


@cache
def all_prompts(tag: str) -> tuple[ScenePrompt, ...]:
    """Every prompt of a GenEval task (or ``"sign"``), in a fixed order.

    Raises:
        ValueError: there is no such task.
    """
    if tag == "sign":
        return tuple(ScenePrompt(f'a sign saying "{word}"', tag, word=word) for word in V.TRAIN_WORDS + V.TEST_WORDS)
    if tag not in _CLAUSES:
        raise ValueError(f"unknown task {tag!r}; tasks are {', '.join((*V.TASKS, 'sign'))}")
    return tuple(ScenePrompt(_text(clauses), tag, clauses, _exclude(clauses)) for clauses in _CLAUSES[tag]())


Clauses = tuple[dict[str, Any], ...]


def _clause(shape: str, count: int = 1, **said: object) -> dict[str, Any]:
    """A clause of a shape, with what the caption says of it besides."""
    return {"class": shape, "count": count} | {key: value for key, value in said.items() if value}


def _single_object() -> Iterator[Clauses]:
    for size, place, shape in product(V.SIZES, V.PLACES, V.SHAPES):
        yield (_clause(shape, size=size, place=place),)


def _two_object() -> Iterator[Clauses]:
    """At most one of the two has a size."""
    for (first, second), sizes in product(permutations(V.SHAPES, 2), product(V.SIZES, repeat=2)):
        if not all(sizes):
            yield _clause(first, size=sizes[0]), _clause(second, size=sizes[1])


def _counting() -> Iterator[Clauses]:
    for count, color, shape in product(V.COUNTS, ("", *V.COLORS), V.SHAPES):
        yield (_clause(shape, count, color=color),)


def _colors() -> Iterator[Clauses]:
    for size, color, shape in product(V.SIZES, V.COLORS, V.SHAPES):
        yield (_clause(shape, color=color, size=size),)


def _position() -> Iterator[Clauses]:
    """GenEval's order: the clause that carries the position comes second and points at the first."""
    for relation, (placed, target) in product(V.RELATIONS, permutations(V.SHAPES, 2)):
        yield _clause(target), _clause(placed, position=(relation, 0))


def _color_attr() -> Iterator[Clauses]:
    for shapes, colors in product(permutations(V.SHAPES, 2), permutations(V.COLORS, 2)):
        first, second = (_clause(shape, color=color) for shape, color in zip(shapes, colors, strict=True))
        yield first, second


_CLAUSES = {
    "single_object": _single_object,
    "two_object": _two_object,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attr": _color_attr,
}


def _text(clauses: Clauses) -> str:
    """The caption of clauses: ``a small star near the top``, ``three red rings``, ``a bow left of a moon``."""
    parts = []
    for clause in clauses:
        count, shape = clause["count"], clause["class"]
        article, noun = (V.COUNTS[count], V.PLURALS[shape]) if count > 1 else ("a", shape)
        words = (article, clause.get("size", ""), clause.get("color", ""), noun)
        place = f" near the {clause['place']}" if "place" in clause else ""
        parts.append(" ".join(filter(None, words)) + place)
    if relation := clauses[-1].get("position"):
        return f"{parts[1]} {relation[0]} {parts[0]}"
    return " and ".join(parts)


def _exclude(clauses: Clauses) -> Clauses:
    """GenEval's clause against one more than a caption counts."""
    return tuple(_clause(c["class"], c["count"] + 1) for c in clauses if c["count"] > 1)


# How often each task appears in a corpus; positions most, since each of four relations has its own layout.
TASK_WEIGHTS = {
    "single_object": 0.12,
    "two_object": 0.14,
    "counting": 0.17,
    "colors": 0.12,
    "position": 0.20,
    "color_attr": 0.12,
    "sign": 0.13,
}


class TrainingPrompts:
    """Draws training prompts: a task by ``TASK_WEIGHTS``, then one of its prompts that is not held out."""

    def __init__(self) -> None:
        self._tags = tuple(TASK_WEIGHTS)
        self._weights = np.array([TASK_WEIGHTS[tag] for tag in self._tags])
        self.prompts = {tag: [p for p in all_prompts(tag) if not p.held_out] for tag in self._tags}

    def draw(self, rng: np.random.Generator) -> ScenePrompt:
        prompts = self.prompts[self._tags[rng.choice(len(self._tags), p=self._weights)]]
        return prompts[rng.integers(len(prompts))]


_Spot = tuple[dict[str, Any], float, float, float]
"""A clause with the x, y and radius of one of its things before anything moves, in pixels of a 64 px picture."""
_SINGLE = {"small": 10.0, "": 14.0, "big": 19.0}
_BESIDE = {"small": 10.0, "": 12.0, "big": 14.5}
"""Radius by size, of a thing alone and of one of two."""
_GROUPS = {
    2: (12.0, ((17, 32), (47, 32))),
    3: (11.5, ((32, 17), (16, 46), (48, 46))),
    4: (11.0, ((17, 17), (47, 17), (17, 47), (47, 47))),
    5: (9.0, ((13.5, 13.5), (50.5, 13.5), (32, 32), (13.5, 50.5), (50.5, 50.5))),
}
"""Radius and middles of counted things."""
_MARGIN = 1.5
"""Least distance to the picture's edge, in pixels."""
_GAP = 2.0
"""Least distance between two things along the line between their middles, or along an axis, in pixels."""
_SLANT = 0.5
"""Greatest offset across a relation, as a share of the offset along it: left is left, and never as much above."""


def _layout(prompt: ScenePrompt) -> list[_Spot]:
    """Where things stand before they move.

    Captions that join two things with "and" name them in reading order: left first.
    """
    include = prompt.include
    if len(include) == 2:
        relation = include[1].get("position", ("right of", 0))[0]  # of the second thing to the first
        dx, dy = _directions()[relation]
        places = ((32 - 15 * dx, 32 - 15 * dy), (32 + 15 * dx, 32 + 15 * dy))
        return [(c, x, y, _BESIDE[c.get("size", "")]) for c, (x, y) in zip(include, places, strict=True)]
    (clause,) = include
    if clause["count"] > 1:
        radius, middles = _GROUPS[clause["count"]]
        return [(clause, x, y, radius) for x, y in middles]
    radius = _SINGLE[clause.get("size", "")]
    away = _away(radius)
    dx, dy = V.PLACES[clause.get("place", "")]
    return [(clause, 32 + dx * away, 32 + dy * away, radius)]


def _directions() -> dict[str, tuple[int, int]]:
    return dict(zip(V.RELATIONS, ((-1, 0), (1, 0), (0, -1), (0, 1)), strict=True))


def _away(radius: float) -> float:
    """How far from the middle of the picture a thing near its edge stands."""
    return 27.0 - radius


def compose(prompt: ScenePrompt, rng: np.random.Generator, style: float | None = None) -> Scene:
    """Fill in what the caption leaves open: colours, positions within the layout, style.

    Things move together and apart, in a good style less than in a bad one, and never so far that they touch, leave
    the picture or make the caption untrue.

    Args:
        prompt: what the picture must show.
        rng: source of every choice.
        style: fixed style in [0, 1]; drawn uniformly when None.
    """
    style = float(rng.uniform()) if style is None else style
    names = list(V.COLORS)
    taken = {clause["color"] for clause in prompt.include if "color" in clause}
    free = [name for i in rng.permutation(len(names)) if (name := names[i]) not in taken]
    ground_hue = float(rng.uniform())
    spread = 1.0 + 2.0 * (1.0 - style)  # a good composition is a balanced one
    if prompt.word is not None:
        sign_y = SIZE / 2 + float(np.clip(rng.normal(0, 2.0 * spread), -12.0, 12.0))
        return Scene(prompt, (), style, ground_hue, sign_y)
    spots = _layout(prompt)
    colors = free[:1] * len(spots) if prompt.tag == "counting" else free  # a counted group shares one colour
    reach = 1.0  # falls with every failed try, so that a layout without room ends unmoved
    while True:
        drift = rng.normal(0, 1.5 * spread, 2)
        things = []
        for (clause, x, y, radius), color in zip(spots, colors, strict=False):
            dx, dy = reach * (drift + rng.normal(0, 0.75 * spread, 2))
            size = radius * (1 + reach * float(rng.uniform(-0.08, 0.08)))
            things.append(Thing(clause["class"], clause.get("color", color), float(x + dx), float(y + dy), size))
        if _is_true(prompt, things):
            return Scene(prompt, tuple(things), style, ground_hue)
        reach *= 0.9


def _is_true(prompt: ScenePrompt, things: list[Thing]) -> bool:
    """True if things are whole and apart, and stand as the caption says."""
    if not all(_is_inside(thing) for thing in things):
        return False
    if not all(_are_apart(a, b) for i, a in enumerate(things) for b in things[:i]):
        return False
    if len(prompt.include) == 2:
        upright = prompt.include[1].get("position", ("", 0))[0] in ("above", "below")
        offsets = abs(things[0].x - things[1].x), abs(things[0].y - things[1].y)
        along, across = reversed(offsets) if upright else offsets
        return across <= _SLANT * along
    if place := prompt.include[0].get("place"):
        (thing,), away = things, _away(_SINGLE[prompt.include[0].get("size", "")])
        offsets = thing.x - SIZE / 2, thing.y - SIZE / 2
        return all(
            0.7 * away <= d * offset if d else abs(offset) <= 0.45 * away
            for d, offset in zip(V.PLACES[place], offsets, strict=True)
        )
    return True


def _is_inside(thing: Thing) -> bool:
    middle, low, high = np.array([thing.x, thing.y]), OUTLINES[thing.shape].min(0), OUTLINES[thing.shape].max(0)
    return bool(
        (middle + thing.radius * low >= _MARGIN).all() and (middle + thing.radius * high <= SIZE - _MARGIN).all()
    )


def _are_apart(a: Thing, b: Thing) -> bool:
    """True if a line between the two leaves a gap: one across the line of their middles, or along an axis."""
    between = np.array([b.x - a.x, b.y - a.y])
    directions = [between / np.linalg.norm(between), *(np.sign(between) * np.eye(2))]
    for direction in directions:
        reach = a.radius * (OUTLINES[a.shape] @ direction).max() + b.radius * (OUTLINES[b.shape] @ -direction).max()
        if between @ direction - reach >= _GAP:
            return True
    return False


def restyle(scene: Scene, style: float) -> Scene:
    """The same scene drawn in another style (used to test that metrics see what they should)."""
    return replace(scene, style=style)
