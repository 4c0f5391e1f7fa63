"""GenEval's metrics on tiny models of random weights: values, one look per picture, what is missing or recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn import drawn, metric, one_line
from tiny_clip import make_tiny_clip
from tiny_mask2former import make_tiny_mask2former

from bench import registry
from bench.suite import Prompt
from benchmarks import geneval_colours, geneval_detector
from benchmarks.geneval_prompts import COLOURS
from benchmarks.mask2former import Mask2Former
from benchmarks.metrics.geneval import detections
from benchmarks.remembered import Remembered

PINNED = {
    "geneval": (1, [1, 1, 0, 1, 0, 0]),
    "geneval_strict": (1, [1, 0, 0, 1, 0, 0]),
    "geneval_reward": (1, [1, 0.5, 0.5, 1, 2 / 3, 0.5]),
    "geneval_reward_released": (1, [1, 0.5, 0.5, 1, 0.75, 0.5]),
}
"""Metric → version, scores of ``asked`` by the tiny models."""


def asked() -> tuple[list[np.ndarray], list[Prompt]]:
    """Six drawn pictures, one a task; the classes are such as the tiny detector finds."""
    tasks: dict[str, dict[str, object]] = {
        "single_object": {"include": [{"class": "thing 61", "count": 1}]},
        "two_object": {"include": [{"class": "thing 61", "count": 1}, {"class": "thing 38", "count": 1}]},
        "counting": {"include": [{"class": "thing 29", "count": 2}], "exclude": [{"class": "thing 29", "count": 3}]},
        "colors": {"include": [{"class": "thing 61", "count": 1, "color": "black"}]},
        "position": {
            "include": [{"class": "thing 61", "count": 1}, {"class": "thing 4", "count": 1, "position": ["above", 0]}]
        },
        "color_attr": {
            "include": [
                {"class": "thing 61", "count": 1, "color": "white"},
                {"class": "thing 38", "count": 1, "color": "pink"},
            ]
        },
    }
    prompts = [
        Prompt(str(number), f"a photo, {task}", task, facts) for number, (task, facts) in enumerate(tasks.items())
    ]
    return drawn()[0][::4], prompts


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``clip/`` and ``detector.pth``."""
    folder = tmp_path_factory.mktemp("models")
    make_tiny_clip(folder / "clip", [*COLOURS, "a", "photo", "of", "colored", "object", "thing"])
    make_tiny_mask2former(folder / "detector.pth")
    return folder


@pytest.fixture(autouse=True)
def stand_ins(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ASSET_CLIP_VIT_L14", str(models / "clip"))
    monkeypatch.setenv("BENCH_ASSET_GENEVAL_DETECTOR", str(models / "detector.pth"))
    monkeypatch.setattr(geneval_detector, "class_names", lambda: tuple(f"thing {number}" for number in range(80)))


@pytest.mark.parametrize("name", PINNED)
def test_the_value_on_committed_inputs_is_pinned(name: str) -> None:
    version, value = PINNED[name]
    assert metric(name).version == version
    assert metric(name).score(*asked()) == pytest.approx(value, abs=1e-6)


def test_the_four_share_one_look_at_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    look = Mask2Former.__call__
    monkeypatch.setattr(Mask2Former, "__call__", lambda self, image: looks.append(1) or look(self, image))
    monkeypatch.setattr(geneval_detector, "pictures", Remembered(64))
    pictures, prompts = (column[:2] for column in asked())
    for name in PINNED:
        metric(name).score(pictures, prompts)
        metric(name).release()
    assert len(looks) == 2


def test_scores_do_not_depend_on_what_stands_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, prompts = asked()
    judge = metric("geneval_reward")
    together = judge.score(pictures, prompts)
    monkeypatch.setattr(geneval_detector, "pictures", Remembered(64))
    monkeypatch.setattr(geneval_colours, "colours", Remembered(64))
    assert [judge.score([pictures[number]], [prompts[number]])[0] for number in (4, 3)] == [together[4], together[3]]


def test_objects_must_be_surer_where_they_are_counted() -> None:
    pictures, prompts = asked()
    plain = detections(pictures[2], Prompt("0", "", "single_object", prompts[2].facts))
    counted = detections(pictures[2], prompts[2])
    assert 0 < len(counted) < len(plain)
    assert counted == [one for one in plain if one.confidence > 0.9]


def test_only_the_objects_a_clause_is_about_have_colours() -> None:
    pictures, prompts = asked()
    found = detections(pictures[5], prompts[5])
    coloured = [one.name for one in found if one.color is not None]
    assert sorted(set(coloured)) == ["thing 38", "thing 61"]
    assert coloured.count("thing 61") == 1
    assert coloured.count("thing 38") <= 2
    assert all(one.color is None for one in detections(pictures[0], prompts[0]))


@pytest.mark.parametrize("name", PINNED)
def test_what_pins_the_weights_is_recorded(name: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = metric(name).describe()["weights"]
    assert weights.count("stand-in sha256:") == 2
    assert "sha256:608f6a0e" in weights
    monkeypatch.delenv("BENCH_ASSET_GENEVAL_DETECTOR")
    assert "sha256 prefix:743b7d99" in metric(name).describe()["weights"]
    assert metric(name).describe()["grouped"] is True


@pytest.mark.parametrize("name", PINNED)
def test_a_missing_detector_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BENCH_ASSET_GENEVAL_DETECTOR")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assert "run `bench assets fetch geneval_detector`" in one_line(metric(name).prepare)


def test_every_metric_says_what_it_needs() -> None:
    for name in PINNED:
        found = registry.load("metrics", name)
        assert found.assets == ("geneval_detector", "geneval_classes", "clip_vit_l14")
        assert found.needs_facts == ("include",)
        assert found.grouped
        assert found.flops_per_image.fget(found()) > 2e9
