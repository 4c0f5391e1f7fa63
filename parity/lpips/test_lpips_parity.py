"""Our LPIPS against the package of its authors: the same random AlexNet, the real learnt weights, the same pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from drawn import drawn, metric, smooth
from official_package import run_official
from tiny_lpips import make_alexnet

from bench import assets
from bench.assets.kinds import sha256_of
from bench.rng import numpy_generator
from bench.suite import Prompt
from benchmarks import lpips

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-parity-lpips" / "bin" / "python"
CLOSE = 1e-5
"""Largest difference, absolute and relative."""


def groups() -> list[list[np.ndarray]]:
    """Pictures of one size each: scenes, noise on an odd size, the paper's size, and constants."""
    scenes = drawn()[0]
    noise = numpy_generator(31, 0, 0, "parity").integers(0, 256, (3, 131, 90, 3)).astype(np.uint8)
    constants = [np.full((64, 64, 3), value, np.uint8) for value in (0, 128, 255)]
    return [scenes[:5], list(noise), smooth(2, 512), [*constants, scenes[5]]]


def test_lpips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: object) -> None:
    if not PYTHON.exists():
        pytest.skip("no environment of the official package; `make parity` builds it")
    make_alexnet(tmp_path / "alexnet.pth")
    numbers, pictures = [], []
    for group in groups():
        numbers.append(list(range(len(pictures), len(pictures) + len(group))))
        pictures += group
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "job.json").write_text(json.dumps({"groups": numbers}))
    run_official(PYTHON, Path(__file__).with_name("official.py"), tmp_path)
    official = [np.array(matrix) for matrix in json.loads((tmp_path / "distances.json").read_text())]

    assert f"sha256:{sha256_of(tmp_path / 'heads.pth')}" == assets.get("lpips_heads").identity
    monkeypatch.setenv("BENCH_ASSET_LPIPS_ALEXNET", str(tmp_path / "alexnet.pth"))
    monkeypatch.setenv("BENCH_ASSET_LPIPS_HEADS", str(tmp_path / "heads.pth"))
    largest = 0.0
    for group, theirs in zip(groups(), official, strict=True):
        ours = lpips.load().distances(group)
        apart = ~np.eye(len(group), dtype=bool)
        assert theirs[apart].min() > 0.001
        largest = max(largest, float((np.abs(ours - theirs) / np.where(apart, theirs, 1)).max()))
        score = metric("lpips_diversity").score(group, [Prompt("0", "a prompt")] * len(group))[0]
        assert score == pytest.approx(theirs[apart].mean(), rel=CLOSE)
    record_property("largest_relative_difference", largest)  # type: ignore[operator]
    print(f"largest relative difference {largest:.2e}")
    assert largest <= CLOSE
