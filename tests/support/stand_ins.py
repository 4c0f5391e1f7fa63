"""A tiny random model for every asset that a metric of the paper's suite needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import tiny_blip
import tiny_clip
import tiny_lpips
import tiny_mask2former
import tiny_open_clip


def stand_ins(folder: Path, words: Sequence[str]) -> dict[str, Callable[[], Path]]:
    """Asset → what makes a tiny random model of its format in ``folder``, whose vocabulary holds ``words``."""

    def clip() -> Path:
        if not (folder / "clip").exists():
            tiny_clip.make_tiny_clip(folder / "clip", words)
        return folder / "clip"

    def vocabulary() -> Path:
        tiny_blip.make_vocabulary(folder / "vocab.txt", words)
        return folder / "vocab.txt"

    def reward() -> Path:
        count = tiny_blip.make_vocabulary(folder / "vocab.txt", words)
        tiny_blip.make_tiny_image_reward(folder / "ImageReward.pt", count)
        return folder / "ImageReward.pt"

    def file(name: str, make: Callable[[Path], object]) -> Callable[[], Path]:
        def made() -> Path:
            make(folder / name)
            return folder / name

        return made

    return {
        "clip_vit_l14": clip,
        "pickscore_v1": clip,
        "clip_vit_h14_processor": clip,
        "aesthetic_head": file("head.pth", tiny_clip.make_head),
        "hpsv2_1": file("hps.pt", tiny_open_clip.make_tiny_open_clip),
        "imagereward_v1": reward,
        "bert_vocabulary": vocabulary,
        "lpips_alexnet": file("alexnet.pth", tiny_lpips.make_alexnet),
        "lpips_heads": file("heads.pth", tiny_lpips.make_heads),
        "geneval_detector": file("mask2former.pth", tiny_mask2former.make_tiny_mask2former),
    }
