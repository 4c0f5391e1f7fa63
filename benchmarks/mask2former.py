"""Mask2Former with a Swin backbone: objects in a picture, as mmdet 2.x finds them, on transformers' model.

What is part of a metric's version: the test pipeline of mmdet 2.28.2, the end of the 2.x branch that GenEval installs
(``configs/mask2former/mask2former_r50_lsj_8x2_50e_coco-panoptic.py``), and ``MaskFormerFusionHead``'s way from queries
to instances, in float32 without TF32 or autocast. mmdet 3.x resizes in floating point and pads with another colour, and
so gives other numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bench.backbone.loader import quiet
from benchmarks import inference, mmdet_weights

LONG, SHORT, DIVISOR = 1333, 800, 32
"""A picture is scaled, its form kept, until one side meets its limit; then padded to a multiple of the divisor."""
PADDING = 128
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
INSTANCES = 100
"""Instances per picture."""


@dataclass(frozen=True)
class Instances:
    """What was found in one picture of size (H, W), best first.

    Attributes:
        labels: class numbers, int64 (N,).
        scores: class score times mean mask score, float32 (N,), in [0, 1].
        boxes: float32 (N, 4): x0, y0 of the first pixel and x1, y1 behind the last; zeros for an empty mask.
        masks: bool (N, H, W).
    """

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray


class Mask2Former:
    """A Mask2Former on the current GPU, or on the CPU where there is none.

    Args:
        path: an mmdet checkpoint, of version 2.x or 3.x.

    Raises:
        BenchError: the file holds something else, or weights that do not fill the model.
    """

    def __init__(self, path: Path) -> None:
        from transformers import Mask2FormerForUniversalSegmentation

        quiet()
        weights = mmdet_weights.read(path)
        self.config: Any = mmdet_weights.sizes(path, weights)
        self.classes: int = self.config.num_labels
        self.device = inference.device()
        model = Mask2FormerForUniversalSegmentation(self.config)
        try:
            absent, more = model.load_state_dict(mmdet_weights.converted(weights), strict=False)
        except RuntimeError as error:  # a tensor of another shape
            raise mmdet_weights.no_mask2former(path, str(error).splitlines()[1].strip()) from error
        unused = ("criterion.empty_weight", ".swin.layernorm.weight", ".swin.layernorm.bias")
        if absent := [name for name in absent if not name.endswith(unused)]:
            raise mmdet_weights.no_mask2former(path, f"{len(absent)} of its weights are absent, {absent[0]} first")
        if more:
            raise mmdet_weights.no_mask2former(path, f"{len(more)} weights have no place, {more[0]} first")
        self.model: Any = model.eval().requires_grad_(False).to(self.device)

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> Instances:
        """Find the objects in a uint8 (H, W, 3) picture of any size."""
        pixels, size = prepare(image)
        with inference.exact():
            outputs = self.model(pixel_values=pixels.to(self.device))
            masks = interpolate(
                outputs.masks_queries_logits, size=pixels.shape[-2:], mode="bilinear", align_corners=False
            )[:, :, : size[0], : size[1]]
            masks = interpolate(masks, size=image.shape[:2], mode="bilinear", align_corners=False)
            return instances(outputs.class_queries_logits[0], masks[0])


def prepare(image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
    """What the model is given, float32 (1, 3, h, w), and the part (h', w') of it that the picture fills.

    Resized by OpenCV's bilinear filter on 8-bit pixels, as mmcv does; grey behind the picture; normalised.
    """
    inference.check_pictures([image])
    height, width = image.shape[:2]
    scale = min(LONG / max(height, width), SHORT / min(height, width))
    size = (int(height * scale + 0.5), int(width * scale + 0.5))
    resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    filled = np.full((*(side + -side % DIVISOR for side in size), 3), PADDING, np.uint8)
    filled[: size[0], : size[1]] = resized
    pixels = torch.from_numpy((filled - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32))
    return pixels.permute(2, 0, 1)[None], size


def instances(classes: Tensor, masks: Tensor) -> Instances:
    """Instances of class logits (Q, C + 1), the last for no object, and mask logits (Q, H, W).

    Source: mmdet 2.28.2 and 3.3.0, ``MaskFormerFusionHead.instance_postprocess`` and ``mask2bbox``. The best pairs of
    query and class are kept, so that one query may stand for two classes.
    """
    scores = classes.softmax(-1)[:, :-1]
    best = scores.flatten().topk(min(INSTANCES, scores.numel()))
    chosen = masks[best.indices // scores.shape[1]]
    inside = chosen > 0
    certainty = (chosen.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
    final = best.values * certainty
    order = final.argsort(descending=True, stable=True)
    best_masks = inside[order].cpu().numpy()
    return Instances(
        labels=(best.indices % scores.shape[1])[order].cpu().numpy(),
        scores=final[order].cpu().numpy(),
        boxes=np.stack([_box(mask) for mask in best_masks]),
        masks=best_masks,
    )


def _box(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


@cache
def flops(path: Path) -> float:
    """FLOPs of one square picture, from the shapes of a checkpoint's weights."""
    from transformers import Mask2FormerForUniversalSegmentation

    from bench.flops import count

    config = mmdet_weights.sizes(path, mmdet_weights.read(path))
    with torch.device("meta"):
        twin: Any = Mask2FormerForUniversalSegmentation(config).eval().to("meta")  # one of its tensors stays behind
        pixels = torch.empty(1, 3, SHORT, SHORT)
    with torch.no_grad():
        return count(lambda: twin(pixel_values=pixels))
