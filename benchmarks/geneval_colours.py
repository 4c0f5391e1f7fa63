"""GenEval's colours: which of ten an object has, by CLIP ViT-L/14 on the object cut out of its background.

Source: ``ImageCrops`` and ``color_classification`` of ``evaluation/evaluate_images.py``, djghosh13/geneval @ af4902f;
``zero_shot_classifier`` and ``run_classification`` of LAION-AI/CLIP_benchmark @ 167d471. There the model is open_clip's
``ViT-L-14`` with OpenAI's weights. The asset ``clip_vit_l14`` is the same weights in transformers' layout, which the
other metrics load too: the same numbers to float32 round-off, as a test shows on random weights. Crops are prepared as
open_clip prepares them; it centres an odd remainder differently from transformers. GenEval may run CLIP under autocast,
by the default of the clip_benchmark that is installed; here it is float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from bench import assets
from bench.suite import Prompt
from benchmarks import clip_vit
from benchmarks.clip_vit import ClipViT
from benchmarks.geneval_detector import Instance
from benchmarks.geneval_prompts import COLOURS
from benchmarks.remembered import Remembered, digest

TEMPLATES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")
BACKGROUND = np.uint8(0x99)
CROPS, NAMES = 16384, 1024
"""Crops whose colour is remembered, and class names whose ten colours are; some bytes, and some kB, each."""

colours: Remembered[str] = Remembered(CROPS)
"""The colour of each crop that was looked at."""
_classifiers: Remembered[Tensor] = Remembered(NAMES)


def colour(image: np.ndarray, instance: Instance) -> str:
    """The colour of an object of a uint8 (H, W, 3) picture. Raises BenchError where CLIP is missing."""
    path = assets.path(clip_vit.ASSET).resolve()
    crop = cut_out(image, instance)
    return colours.get((path, instance.name, digest(crop)), lambda: _classify(path, crop, instance.name))


def _classify(path: Path, crop: np.ndarray, name: str) -> str:
    clip = clip_vit.load()
    texts = _classifiers.get((path, name), lambda: classifier(clip, name))
    return COLOURS[int((texts @ clip.embed_images([centred(crop, clip.side)])[0]).argmax())]


def classifier(clip: ClipViT, name: str) -> Tensor:
    """A direction per colour for objects of a class, float32 (10, width): the normalised mean of three texts."""
    texts = [template.format(colour=colour, name=name) for colour in COLOURS for template in TEMPLATES]
    embeds = clip.embed_prompts([Prompt("", text) for text in texts])
    return normalize(embeds.reshape(len(COLOURS), len(TEMPLATES), -1).mean(1), dim=-1)


def cut_out(image: np.ndarray, instance: Instance) -> np.ndarray:
    """The object's box of a picture, grey where the object is not."""
    x0, y0, x1, y1 = map(int, instance.box)
    mask = instance.mask(*image.shape[:2])[y0:y1, x0:x1, None]
    return np.where(mask, image[y0:y1, x0:x1], BACKGROUND)


def centred(crop: np.ndarray, side: int) -> np.ndarray:
    """uint8 (side, side, 3) as open_clip prepares a crop: shorter side to ``side``, bicubic in PIL, then the middle.

    Source: open_clip 3.3.0, ``image_transform``, with torchvision's ``Resize`` and ``CenterCrop``: the longer side is
    cut to whole pixels, half of an odd remainder rounded to even.
    """
    height, width = crop.shape[:2]
    scaled = [int(side * length / min(height, width)) for length in (height, width)]
    resized = np.asarray(Image.fromarray(crop).resize((scaled[1], scaled[0]), Image.Resampling.BICUBIC))
    top, left = (round((length - side) / 2) for length in scaled)
    return resized[top : top + side, left : left + side]
