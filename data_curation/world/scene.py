"""What a scene says and what it shows: captions after GenEval's six tasks, signs, layouts, and a hidden style."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_curation.world import vocabulary as V


@dataclass(frozen=True)
class Prompt:
    """A caption and what must be true of its picture, in GenEval's metadata form.

    ``include`` clauses are ``{"class", "count", "color"?, "position"? = (relation, index of the target clause)}``,
    with the caption's ``"size"`` where it has one (drawn, but not part of GenEval's rule);
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
        shapes = [clause["class"] for clause in self.include]
        return (
            any((c.get("color"), c["class"]) in V.HELD_OUT_BINDINGS for c in self.include)
            or any((c["count"], c["class"]) in V.HELD_OUT_COUNTS for c in self.include)
            or (self.tag == "single_object" and (self.include[0].get("size", ""), shapes[0]) in V.HELD_OUT_SIZES)
            or frozenset(shapes) in V.HELD_OUT_PAIRS
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
    """

    prompt: Prompt
    things: tuple[Thing, ...]
    style: float
    ground_hue: float


def all_prompts(tag: str) -> list[Prompt]:
    """Every prompt of a GenEval task (or ``"sign"``), in a fixed order."""
    one = {"count": 1}
    if tag == "single_object":
        return [
            Prompt(" ".join(("a", size, shape)).replace("  ", " "), tag, ({"class": shape, **one, "size": size},))
            for size in V.SIZES
            for shape in V.SHAPES
        ]
    if tag == "two_object":
        return [
            Prompt(f"a {a} and a {b}", tag, ({"class": a, **one}, {"class": b, **one}))
            for a in V.SHAPES
            for b in V.SHAPES
            if a != b
        ]
    if tag == "counting":
        return [
            Prompt(
                f"{word} {V.PLURALS[shape]}",
                tag,
                ({"class": shape, "count": n},),
                ({"class": shape, "count": n + 1},),
            )
            for n, word in V.COUNTS.items()
            for shape in V.SHAPES
        ]
    if tag == "colors":
        return [
            Prompt(f"a {color} {shape}", tag, ({"class": shape, **one, "color": color},))
            for color in V.COLORS
            for shape in V.SHAPES
        ]
    if tag == "position":
        return [
            # GenEval's order: the clause that carries the position comes second and points at the first.
            Prompt(f"a {a} {rel} a {b}", tag, ({"class": b, **one}, {"class": a, **one, "position": (rel, 0)}))
            for rel in V.RELATIONS
            for a in V.SHAPES
            for b in V.SHAPES
            if a != b
        ]
    if tag == "color_attr":
        return [
            Prompt(
                f"a {c} {a} and a {d} {b}",
                tag,
                ({"class": a, **one, "color": c}, {"class": b, **one, "color": d}),
            )
            for a in V.SHAPES
            for b in V.SHAPES
            if a != b
            for c in V.COLORS
            for d in V.COLORS
            if c != d
        ]
    if tag == "sign":
        return [Prompt(f'a sign saying "{word}"', tag, word=word) for word in V.TRAIN_WORDS + V.TEST_WORDS]
    raise ValueError(f"unknown task {tag!r}; tasks are {', '.join((*V.TASKS, 'sign'))}")


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

    def draw(self, rng: np.random.Generator) -> Prompt:
        prompts = self.prompts[self._tags[rng.choice(len(self._tags), p=self._weights)]]
        return prompts[rng.integers(len(prompts))]


def _layout(prompt: Prompt) -> list[tuple[str, str | None, float, float, float]]:
    """(shape, colour or None, x, y, radius) per thing before jitter, in pixels of a 64 px picture.

    Captions that join two things with "and" name them in reading order: left first.
    """
    include = prompt.include
    if prompt.tag in ("single_object", "colors"):
        radius = {"small": 10.0, "": 15.0, "big": 21.0}[include[0].get("size", "")]
        return [(include[0]["class"], include[0].get("color"), 32, 32, radius)]
    if prompt.tag == "counting":
        spots = {
            2: [(17, 32), (47, 32)],
            3: [(32, 17), (16, 45), (48, 45)],
            4: [(17, 17), (47, 17), (17, 47), (47, 47)],
        }[include[0]["count"]]
        return [(include[0]["class"], None, x, y, 11.0) for x, y in spots]
    if prompt.tag == "position":  # the second clause stands in the relation to the first
        spots2 = {
            "left of": ((47, 32), (17, 32)),
            "right of": ((17, 32), (47, 32)),
            "above": ((32, 47), (32, 17)),
            "below": ((32, 17), (32, 47)),
        }[include[1]["position"][0]]
    else:
        spots2 = ((17, 32), (47, 32))
    return [(clause["class"], clause.get("color"), x, y, 12.0) for clause, (x, y) in zip(include, spots2, strict=True)]


def compose(prompt: Prompt, rng: np.random.Generator, style: float | None = None) -> Scene:
    """Fill in what the caption leaves open: colours, positions within the layout, style.

    Args:
        prompt: what the picture must show.
        rng: source of every choice.
        style: fixed style in [0, 1]; drawn uniformly when None.
    """
    style = float(rng.uniform()) if style is None else style
    names = list(V.COLORS)
    free = [names[i] for i in rng.permutation(len(names))]
    taken = {clause["color"] for clause in prompt.include if "color" in clause}
    free = [name for name in free if name not in taken]
    same = prompt.tag == "counting"  # a counted group shares one colour
    spread = 0.4 + 1.1 * (1.0 - style)  # a good composition is a balanced one
    drift = rng.normal(0, spread * 0.6, 2)
    things = []
    for i, (shape, color, x, y, radius) in enumerate(_layout(prompt) if prompt.word is None else []):
        jitter = np.clip(drift + rng.normal(0, spread * 0.3, 2), -2.0, 2.0)
        size = radius * float(rng.uniform(0.97, 1.03))
        things.append(Thing(shape, color or free[0 if same else i], float(x + jitter[0]), float(y + jitter[1]), size))
    return Scene(prompt, tuple(things), style, float(rng.uniform()))


def restyle(scene: Scene, style: float) -> Scene:
    """The same scene drawn in another style (used to test that metrics see what they should)."""
    return replace(scene, style=style)
