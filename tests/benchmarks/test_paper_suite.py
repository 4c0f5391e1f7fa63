"""The paper's suite: three prompt sets, metrics in the order of Table 2, noise of each picture's own, no weights."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from drawn import metric, one_line

from bench import assets, registry
from bench.suite import Suite
from benchmarks.suites import paper

SHARED = Path(__file__).parents[3] / "shared" / "data"
TABLE_2 = Path(__file__).parents[2] / "bench" / "report" / "published" / "main.csv"
FILES = ("geneval_prompts", "ocr_prompts", "drawbench_prompts")
with_the_files = pytest.mark.skipif(not SHARED.is_dir(), reason="the prompt files are not beside this checkout")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, empty."""
    import huggingface_hub.constants

    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def suite(cache: Path) -> Suite:
    """Built with the three prompt files and nothing else: no weights are here."""
    for name in FILES:
        assets.fetch(name, cache, SHARED)
    built: Suite = registry.load("suites", "paper")()
    return built


@with_the_files
def test_the_prompt_sets_are_the_papers(suite: Suite) -> None:
    sizes = {s.name: (len(s.prompts), s.repeats) for s in suite.prompt_sets}
    assert sizes == {"geneval": (553, 4), "ocr": (1018, 1), "drawbench": (200, 5)}
    assert sum(prompts * repeats for prompts, repeats in sizes.values()) == 4230
    assert (suite.sampler.steps, suite.sampler.guidance_scale, suite.sampler.resolution) == (40, 4.5, 512)
    assert suite.version == 1


@with_the_files
def test_the_metrics_of_table_2_stand_in_its_order(suite: Suite) -> None:
    """Against the published table; the metrics beside them stand in between or behind."""
    with TABLE_2.open(encoding="utf-8") as file:
        columns = next(csv.reader(file))[5:]
    names = {"ocr_rapid": "ocr", "hpsv2": "hpsv2_1"}
    order = [names.get(name, name) for name, _ in suite.metrics()]
    assert [name for name in order if name in columns] == columns
    assert len(columns) == 7
    assert len(order) == len(set(order)) == 14
    assert order[-5:] == ["lpips_diversity", "vendi", "brightness", "saturation", "contrast"]


@with_the_files
def test_what_metrics_ask_of_prompts_is_there(suite: Suite) -> None:
    for name, prompts in suite.metrics():
        judge = metric(name)
        assert all(fact in prompt.facts for fact in judge.needs_facts for prompt in prompts.prompts), name
        assert not judge.per_prompt or prompts.repeats > 1, name
        assert not judge.grouped or all(prompt.group for prompt in prompts.prompts), name


@with_the_files
def test_roles_are_played_by_metrics_of_the_suite(suite: Suite) -> None:
    assert set(suite.roles) == {"geneval", "ocr", "pickscore", "clipscore", "hpsv2", "aesthetic", "imagereward"}
    assert set(suite.roles.values()) <= {name for name, _ in suite.metrics()}


@with_the_files
def test_every_picture_has_noise_of_its_own_and_drawbenchs_is_that_of_its_suite(suite: Suite) -> None:
    seeds = {
        suite.noise_seed(s.name, prompt, repeat)
        for s in suite.prompt_sets
        for prompt in s.prompts
        for repeat in range(s.repeats)
    }
    assert len(seeds) == 4230
    other: Suite = registry.load("suites", "drawbench")()
    assert {other.noise_seed("drawbench", p, r) for p in other.prompt_sets[0].prompts for r in range(5)} <= seeds


@with_the_files
@pytest.mark.parametrize("absent", FILES)
def test_a_prompt_file_that_is_absent_or_differs_ends_in_one_line(cache: Path, absent: str) -> None:
    for name in FILES:
        if name != absent:
            assets.fetch(name, cache, SHARED)
    assert one_line(paper.suite).startswith(f"asset {absent} is missing; run `bench assets fetch {absent}`")
    home = assets.fetch(absent, cache, SHARED)
    home.write_bytes(home.read_bytes().replace(b"\n", b" \n", 1))
    assert one_line(paper.suite).startswith(f"asset {absent} is not what it should be: SHA-256")
