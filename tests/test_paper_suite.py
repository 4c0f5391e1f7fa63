"""``bench evaluate --suite paper`` on tiny random models in the real formats: SD3.5-M's pipeline and every metric's."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pipelines
import pytest
from click.testing import CliRunner
from prompt_files import THINGS, make_prompt_files
from stand_ins import stand_ins

from bench import assets, registry
from bench.cli import main
from bench.suite import Sampler

SIDE = 32
SEVEN = ("geneval", "ocr_rapid", "pickscore", "clipscore", "hpsv2", "aesthetic", "imagereward")
BEYOND = ("geneval_strict", "geneval_reward", "lpips_diversity", "vendi", "brightness", "saturation", "contrast")
IMAGES = {"geneval": 6 * 4, "ocr": 1, "drawbench": 5}
"""Of one prompt per group, by prompt set."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny SD3.5-M, made-up prompt files in the cache, and a stand-in of every model but one."""
    folder = tmp_path_factory.mktemp("paper")
    pipelines.make_sd35(folder / "sd35", size="medium")
    (folder / "cache" / "assets").mkdir(parents=True)
    files = make_prompt_files(folder / "cache" / "assets")
    load = registry.load

    def shortened(kind: str, name: str) -> Any:
        if (kind, name) != ("suites", "paper"):
            return load(kind, name)
        return lambda: replace(load(kind, name)(), sampler=Sampler(2, 4.5, SIDE))

    with pytest.MonkeyPatch.context() as patch:
        for name, path in files.items():
            pinned = replace(assets.TABLE[name], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
            patch.setitem(assets.TABLE, name, pinned)
            path.rename(pinned.home(folder / "cache"))
        for name, make in stand_ins(folder, THINGS).items():
            if name != "imagereward_v1":
                patch.setenv(f"BENCH_ASSET_{name.upper()}", str(make()))
        patch.setattr(registry, "load", shortened)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HUB_CACHE", str(folder / "hub"))
        yield folder


@pytest.fixture(scope="module")
def scored(places: Path) -> str:
    """What the command printed."""
    done = evaluate(places)
    assert done.exit_code == 0, done.output
    return done.stdout


def evaluate(places: Path, *flags: str) -> Any:
    command = ["evaluate", str(places / "sd35"), "--suite", "paper", "--limit", "1", "--max-sequence-length", "16"]
    folders = [part for place in ("cache", "runs", "reports") for part in (f"--{place}", str(places / place))]
    return CliRunner().invoke(main, [*command, *folders, *flags])


def samples(places: Path) -> list[dict[str, Any]]:
    (path,) = (places / "runs" / "evaluate-paper-first-1").glob("evaluated--*/evaluations/0/samples.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_image_is_scored_by_every_metric_of_its_prompts(places: Path, scored: str) -> None:
    rows = samples(places)
    counts = {name: sum(row["prompt_set"] == name for row in rows) for name in IMAGES}
    assert counts == IMAGES
    seen = {name for row in rows for name, cell in row["scores"].items() if "score" in cell}
    assert seen == {*SEVEN, *BEYOND} - {"imagereward"}
    for row in rows:
        assert all(("error" in cell) == (name == "imagereward") for name, cell in row["scores"].items())
    assert len({row["seed"] for row in rows}) == len(rows)


def test_a_metric_whose_model_is_not_here_says_so_and_how_to_get_it(places: Path, scored: str) -> None:
    assert "missing 0/5" in scored and "`bench assets fetch imagereward_v1`" in scored
    cells = [row["scores"]["imagereward"] for row in samples(places) if row["prompt_set"] == "drawbench"]
    assert {cell["error"].partition(";")[0] for cell in cells} == {"missing: asset imagereward_v1 is missing"}


def test_the_numbers_carry_what_makes_them_comparable(places: Path, scored: str) -> None:
    assert "2 steps, CFG 4.5, 32 px" in scored and "too few to compare anything" in scored
    for name in {*SEVEN, *BEYOND}:
        assert f"{name} v1" in scored
    assert "the suite's seed 2604" in scored
    metrics = json.loads((places / "runs/evaluate-paper-first-1/experiment.json").read_text())["suite"]["metrics"]
    assert all(m["weights"].startswith("stand-in") for m in metrics if m["name"] in ("pickscore", "clipscore", "hpsv2"))


def test_a_model_that_comes_later_fills_its_column_alone(places: Path, scored: str, monkeypatch: Any) -> None:
    before = {row["image"]: row["scores"] for row in samples(places)}
    monkeypatch.setenv("BENCH_ASSET_IMAGEREWARD_V1", str(stand_ins(places, THINGS)["imagereward_v1"]()))
    run = places / "runs" / "evaluate-paper-first-1"
    done = CliRunner().invoke(main, ["score", str(run), "--cache", str(places / "cache")])
    assert done.exit_code == 0, done.output
    for row in samples(places):
        old, new = before[row["image"]], row["scores"]
        assert {k: v for k, v in new.items() if k != "imagereward"} == {
            k: v for k, v in old.items() if k != "imagereward"
        }
        assert row["prompt_set"] != "drawbench" or "score" in new["imagereward"]
    done = CliRunner().invoke(main, ["report", str(run), "--out", str(places / "full")])
    assert done.exit_code == 0, done.output
    with (places / "full" / "main_results.csv").open() as file:
        (row,) = csv.DictReader(file)
    for name in {*SEVEN, *BEYOND}:
        assert 0 < int(row[f"{name}_n"]) == int(row[f"{name}_N"]), name
        assert row[f"{name}_mean"], name
