"""GenEval's detector: which of its 80 classes a picture shows, where, and how surely. Every picture is looked at once.

Source: ``evaluation/evaluate_images.py`` of djghosh13/geneval @ af4902f: Mask2Former Swin-S of mmdet, objects above a
confidence of 0.3, 0.9 where objects are counted, at most 16 of a class, no suppression of overlaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from bench import assets
from bench.errors import BenchError
from benchmarks import inference, mask2former
from benchmarks.remembered import Remembered, digest

ASSET, CLASSES_ASSET = "geneval_detector", "geneval_classes"
CLASSES = 80
CONFIDENCE, COUNTING_CONFIDENCE = 0.3, 0.9
MOST = 16
"""Objects of a class."""
PICTURES = 4096
"""Pictures remembered: more than GenEval's 2,212; some kB each, since a mask is kept in bits and within its box."""


@dataclass(frozen=True)
class Instance:
    """An object: class, box (x0, y0, x1, y1) in pixels, confidence, and the pixels of its box that belong to it."""

    name: str
    box: tuple[float, float, float, float]
    confidence: float
    bits: bytes

    def mask(self, height: int, width: int) -> np.ndarray:
        """Bool (height, width): the object's pixels in the whole picture."""
        x0, y0, x1, y1 = map(int, self.box)
        inside = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=(y1 - y0) * (x1 - x0)).astype(bool)
        whole = np.zeros((height, width), bool)
        whole[y0:y1, x0:x1] = inside.reshape(y1 - y0, x1 - x0)
        return whole


def detect(image: np.ndarray, *, counting: bool = False) -> list[Instance]:
    """The objects of a uint8 (H, W, 3) picture, most confident first; ``counting`` asks for surer ones."""
    path = assets.path(ASSET).resolve()
    instances = pictures.get((path, digest(image)), lambda: _look(image))
    return [one for one in instances if one.confidence > COUNTING_CONFIDENCE] if counting else list(instances)


pictures: Remembered[tuple[Instance, ...]] = Remembered(PICTURES)
"""What was found in each picture that was looked at."""


def _look(image: np.ndarray) -> tuple[Instance, ...]:
    model, names = load(), class_names()
    output = model(image)
    if not np.isfinite(output.scores).all():
        raise ValueError("the detector's confidences are not all numbers")
    instances: list[Instance] = []
    of_class = dict.fromkeys(names, 0)
    for label, score, box, mask in zip(output.labels, output.scores, output.boxes, output.masks, strict=True):
        name = names[label]
        if not score > CONFIDENCE or of_class[name] == MOST:
            continue
        of_class[name] += 1
        x0, y0, x1, y1 = map(int, box)
        bits = np.packbits(mask[y0:y1, x0:x1]).tobytes()
        instances.append(Instance(name, (float(x0), float(y0), float(x1), float(y1)), float(score), bits))
    return tuple(instances)


def load() -> mask2former.Mask2Former:
    """The detector, loaded once per process. Raises BenchError with how to get it, or for one of other classes."""
    model = inference.loaded(mask2former.Mask2Former, ASSET)
    if model.classes != CLASSES:
        raise BenchError(
            f"GenEval's detector knows {CLASSES} classes; the one in {assets.path(ASSET)} knows {model.classes}"
        )
    return model


def release() -> None:
    """Free the detector; what it found is kept."""
    inference.forget(mask2former.Mask2Former, ASSET)


def flops() -> float:
    """FLOPs of one square picture, from the shapes of the weights alone."""
    return mask2former.flops(assets.path(ASSET).resolve())


def class_names() -> tuple[str, ...]:
    """GenEval's names of the detector's classes, in the detector's order."""
    return read_class_names(assets.path(CLASSES_ASSET))


@cache
def read_class_names(path: Path) -> tuple[str, ...]:
    """One name a line. Raises BenchError unless there are 80 different ones."""
    names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    if len(set(names)) != CLASSES or len(names) != CLASSES or not all(names):
        raise BenchError(
            f"{path} holds {len(names)} lines and not GenEval's {CLASSES} class names; "
            f"run `bench assets fetch {CLASSES_ASSET}`"
        )
    return names
