"""GenEval here against mmdet's detector, GenEval's own rule and the reward server's, on models of random weights."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import tiny_mask2former as tiny  # noqa: E402
from official_package import run_official  # noqa: E402

from bench.rng import numpy_generator  # noqa: E402
from benchmarks import geneval_rule, mask2former  # noqa: E402
from benchmarks.geneval_prompts import COLOURS, RELATIONS  # noqa: E402
from benchmarks.geneval_rule import Detection  # noqa: E402
from benchmarks.mask2former import Instances  # noqa: E402
from data_curation.world import scene  # noqa: E402
from data_curation.world.render import render  # noqa: E402

PYTHON = ROOT / ".venv-parity-geneval" / "bin" / "python"
SIZES = {2: [(64, 64), (96, 64), (70, 133), (200, 75)], 3: [(64, 64), (128, 80), (90, 144)]}
"""mmdet → (height, width). For 2: square, padded below or to the right, the shorter and the longer side met first.
For 3, which pads with another colour than 2, those that are multiples of 32 once they are scaled."""
CASES = [(mmdet, number) for mmdet, sizes in SIZES.items() for number in range(len(sizes))]

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-parity-geneval; run `make parity`")


def officially(folder: Path, task: dict[str, Any]) -> Any:
    (folder / "task.json").write_text(json.dumps(task))
    run_official(PYTHON, Path(__file__).with_name("official.py"), folder)
    return json.loads((folder / "result.json").read_text())


def pictures(folder: Path, sizes: list[tuple[int, int]]) -> list[str]:
    """Drawn scenes, stretched to several sizes, as PNGs."""
    rng = numpy_generator(17, 0, 0, "geneval-parity")
    names = []
    for number, (height, width) in enumerate(sizes):
        drawn = render(scene.compose(scene.all_prompts("two_object")[number * 7], rng, style=0.7))
        names.append(f"{number}.png")
        Image.fromarray(drawn).resize((width, height), Image.Resampling.BICUBIC).save(folder / names[-1])
    return names


@dataclass(frozen=True)
class Seen:
    """One mmdet's instances and ours, by picture, and mmdet's of pictures resized in floating point."""

    theirs: dict[str, Any]
    ours: dict[str, Instances]
    floating: dict[str, Any]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Seen]:
    result = {}
    for mmdet, sizes in SIZES.items():
        folder = tmp_path_factory.mktemp(f"mmdet{mmdet}")
        tiny.make_tiny_mask2former(folder / "checkpoint.pth", newer=mmdet == 3)
        task = {"task": "detect", "mmdet": mmdet, "pictures": pictures(folder, sizes), "sizes": tiny.SIZES}
        model = mask2former.Mask2Former(folder / "checkpoint.pth")
        result[mmdet] = Seen(
            officially(folder, task),
            {name: model(np.asarray(Image.open(folder / name).convert("RGB"))) for name in task["pictures"]},
            officially(folder, task | {"floating": True}),
        )
    return result


@pytest.mark.parametrize(("mmdet", "number"), CASES)
def test_instances_are_mmdets(seen: dict[int, Seen], mmdet: int, number: int) -> None:
    theirs, ours = seen[mmdet].theirs[f"{number}.png"], seen[mmdet].ours[f"{number}.png"]
    sure = np.array(theirs["scores"]) > 0.05
    boxes, pixels = np.array(theirs["boxes"])[sure], np.array(theirs["pixels"])[sure]
    assert sure.sum() > 15
    assert len({tuple(box) for box in boxes}) > 3
    print(  # the figures of the docs
        f"mmdet {mmdet}, {SIZES[mmdet][number]}: {sure.sum()} instances;",
        f"scores differ by {np.abs(ours.scores - theirs['scores']).max():.1e},",
        f"boxes by {np.abs(ours.boxes[sure] - boxes).max():.1e} px,",
        f"masks by {np.abs(ours.masks.sum((1, 2))[sure] - pixels).max()} px",
    )
    assert ours.labels[sure].tolist() == np.array(theirs["labels"])[sure].tolist()
    np.testing.assert_allclose(ours.scores, theirs["scores"], atol=1e-3)
    np.testing.assert_allclose(ours.boxes[sure], boxes, atol=1e-3)


@pytest.mark.parametrize("threshold", [0.3, 0.9])
@pytest.mark.parametrize(("mmdet", "number"), CASES)
def test_decisions_are_mmdets(seen: dict[int, Seen], mmdet: int, number: int, threshold: float) -> None:
    theirs, ours = seen[mmdet].theirs[f"{number}.png"], seen[mmdet].ours[f"{number}.png"]
    kept = np.array(theirs["scores"]) > threshold
    assert ours.labels[ours.scores > threshold].tolist() == np.array(theirs["labels"])[kept].tolist()


@pytest.mark.parametrize("mmdet", SIZES)
def test_resizing_in_floating_point_is_another_thing(seen: dict[int, Seen], mmdet: int) -> None:
    """mmdet 3's own configuration does, and scores move by far more than what round-off leaves."""
    floating = seen[mmdet].floating
    moved = [np.abs(ours.scores - floating[name]["scores"]).max() for name, ours in seen[mmdet].ours.items()]
    print(f"mmdet {mmdet}: floating point moves scores by", [f"{one:.1e}" for one in moved])
    assert max(moved) > 1e-3


# -- the rule ----------------------------------------------------------------------------------------------------------


def sources(folder: Path) -> None:
    """GenEval's rule and the reward server's, as `make parity` fetched them from their repositories."""
    for name in ("evaluate_images.py", "gen_eval.py"):
        found = PYTHON.parents[1] / "sources" / name
        if not found.exists():
            pytest.skip(f"{found} is not there; `make parity` fetches it where there is a network")
        shutil.copy(found, folder)


def cases() -> list[dict[str, Any]]:
    """Random objects of three classes and clauses about them, in all of GenEval's forms and with both kinds at once."""
    rng = numpy_generator(18, 0, 0, "geneval-parity")
    names = ["cat", "dog", "cow"]
    result = []
    for _ in range(3000):
        found = []
        for confidence in np.sort(rng.uniform(0.3, 1, rng.integers(0, 6)))[::-1]:
            x0, y0 = rng.integers(0, 400, 2)
            w, h = rng.integers(1, 112, 2)
            box = [float(v) for v in (x0, y0, x0 + w, y0 + h)]
            colour = COLOURS[rng.integers(3)]
            sure = float(np.float32(confidence))
            found.append({"name": names[rng.integers(3)], "box": box, "color": colour, "confidence": sure})
        include = []
        for place in range(rng.integers(1, 4)):
            clause: dict[str, Any] = {"class": names[place], "count": int(rng.integers(1, 3))}
            if rng.random() < 0.4:
                clause["color"] = COLOURS[rng.integers(3)]
            if place and rng.random() < 0.5:
                clause["position"] = [RELATIONS[rng.integers(4)], int(rng.integers(place))]
            include.append(clause)
        facts: dict[str, Any] = {"include": include}
        if rng.random() < 0.3:
            facts["exclude"] = [{"class": names[0], "count": include[0]["count"] + 1}]
        result.append({"found": found, "facts": facts})
    return result


def test_all_three_numbers_are_those_of_the_repositories(tmp_path: Path) -> None:
    sources(tmp_path)
    given = cases()
    theirs = officially(tmp_path, {"task": "decide", "cases": given})
    kinds = set()
    for case, expected in zip(given, theirs, strict=True):
        found = [Detection(one["name"], one["color"], tuple(one["box"]), one["confidence"]) for one in case["found"]]
        include, exclude = case["facts"]["include"], case["facts"].get("exclude", ())
        assert geneval_rule.is_correct(found, include, exclude) == expected["correct"], case
        assert geneval_rule.is_strictly_correct(found, include) == expected["strict"], case
        assert geneval_rule.reward_released(found, include) == pytest.approx(expected["reward"], abs=1e-12), case
        kinds.add((expected["correct"], expected["strict"], geneval_rule.reward(found, include) < expected["reward"]))
    assert len(kinds) == 4  # all there are: strictly right is right, and earns everything
