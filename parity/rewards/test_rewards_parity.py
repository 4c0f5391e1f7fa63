"""Our metrics against the packages they stand for, on the same checkpoint and pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from drawn import drawn, metric, words
from official_package import run_official
from tiny_blip import make_vocabulary
from tiny_clip import make_tiny_clip

from bench.rng import numpy_generator
from bench.suite import Prompt

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-parity-rewards" / "bin" / "python"
CLOSE = 1e-4
"""Largest relative difference of a score, pair by pair."""
SHAPES = ((64, 64), (512, 512), (224, 224), (300, 451), (451, 300), (129, 64))
ODD = (
    'a Sign that says "HELLO, World!"',
    "An astronaut’s glove floating in zero-g, naïve café — 三 circles",
    "red " * 90,
    "",
)
"""Prompts that tokenizers may read differently: quotes, accents, other scripts, too long, empty."""


def pairs() -> tuple[list[np.ndarray], list[Prompt]]:
    """Scenes of the world, some of them noise or of another shape, with prompts plain and odd."""
    pictures, prompts = drawn()
    rng = numpy_generator(31, 0, 0, "parity")
    for shape in SHAPES:
        pictures.append(rng.integers(0, 256, (*shape, 3)).astype(np.uint8))
        prompts.append(Prompt(f"shape-{shape}", "a red circle left of a blue square"))
    for i, text in enumerate(ODD):
        pictures.append(pictures[i])
        prompts.append(Prompt(f"odd-{i}", text))
    return pictures, prompts


def official(package: str, folder: Path) -> np.ndarray:
    """Scores of ``pairs`` by the official package; the folder then holds its ``checkpoint.pt``."""
    if not PYTHON.exists():
        pytest.skip("no environment of the official packages; `make parity` builds it")
    pictures, prompts = pairs()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i}.png")
    (folder / "job.json").write_text(json.dumps({"prompts": [prompt.text for prompt in prompts]}))
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run_official(PYTHON, Path(__file__).with_name("official.py"), package, folder, **offline)
    return np.array(json.loads((folder / "scores.json").read_text()))


def compare(ours: list[float], theirs: np.ndarray, record: object, least: float = 0) -> None:
    """Equal within ``CLOSE`` of a score, or of ``least`` if it is smaller, on scores that differ by picture."""
    assert theirs.std() > 0.01
    relative = np.abs(np.array(ours) - theirs) / np.maximum(np.abs(theirs), least)
    record("largest_relative_difference", float(relative.max()))  # type: ignore[operator]
    print(f"largest relative difference {relative.max():.1e} over {len(theirs)} scores of deviation {theirs.std():.3f}")
    assert relative.max() <= CLOSE


def test_imagereward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: object) -> None:
    make_vocabulary(tmp_path / "vocab.txt", words())
    theirs = official("image_reward", tmp_path)
    monkeypatch.setenv("BENCH_ASSET_IMAGEREWARD_V1", str(tmp_path / "checkpoint.pt"))
    monkeypatch.setenv("BENCH_ASSET_BERT_VOCABULARY", str(tmp_path / "vocab.txt"))
    compare(metric("imagereward").score(*pairs()), theirs, record_property)


def test_hpsv2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: object) -> None:
    theirs = official("hpsv2", tmp_path)
    monkeypatch.setenv("BENCH_ASSET_HPSV2_1", str(tmp_path / "checkpoint.pt"))
    compare(metric("hpsv2").score(*pairs()), theirs, record_property)


def test_pickscore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: object) -> None:
    """Against ``CLIPModel`` used as the model card's script does, in this environment: it needs no other package."""
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

    make_tiny_clip(tmp_path, words())
    for asset in ("PICKSCORE_V1", "CLIP_VIT_H14_PROCESSOR"):
        monkeypatch.setenv(f"BENCH_ASSET_{asset}", str(tmp_path))
    pictures, prompts = pairs()
    pictures, prompts = pictures[: len(drawn()[0])], prompts[: len(drawn()[0])]
    processor = CLIPProcessor(CLIPImageProcessorPil.from_pretrained(tmp_path), CLIPTokenizer.from_pretrained(tmp_path))
    model = CLIPModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        eyes = processor(images=[Image.fromarray(picture) for picture in pictures], return_tensors="pt")
        texts = processor(text=[prompt.text for prompt in prompts], padding=True, truncation=True, return_tensors="pt")
        out = model(**eyes, **texts)
    theirs = out.logits_per_image.diagonal().numpy()
    compare(metric("pickscore").score(pictures, prompts), theirs, record_property, least=float(theirs.std()))
