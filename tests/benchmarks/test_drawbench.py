"""DrawBench: 200 prompts five times, noise of its own for each picture, and one line for another prompt file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from drawn import one_line

from bench import assets, registry
from bench.cli import main
from benchmarks.drawbench_prompts import read

SHARED = Path(__file__).parents[3] / "shared" / "data"
with_the_file = pytest.mark.skipif(not SHARED.is_dir(), reason="the prompt file is not beside this checkout")


def write(path: Path, lines: list[str], end: str = "") -> Path:
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return path


def mixed() -> list[str]:
    """A file in the release's layout: each of 200 prompts on five lines, in mixed order."""
    return [f"prompt {7 * number % 200}" for number in range(1000)]


@pytest.mark.parametrize("end", ["", "\n"])
def test_prompts_stand_in_the_order_of_their_first_line(tmp_path: Path, end: str) -> None:
    prompts = read(write(tmp_path / "p.txt", mixed(), end))
    assert len(prompts) == 200
    assert [prompt.text for prompt in prompts[:3]] == ["prompt 0", "prompt 7", "prompt 14"]
    assert [prompt.id for prompt in (prompts[0], prompts[199])] == ["000", "199"]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (mixed()[:999], "999 lines with 200 different"),
        (mixed()[:200], "200 lines with 200 different"),
        ([*mixed()[:999], "one more"], "1000 lines with 201 different"),
        (["" if line == "prompt 3" else line for line in mixed()], "1000 lines with 200 different"),
    ],
)
def test_a_file_of_another_layout_is_refused(tmp_path: Path, lines: list[str], found: str) -> None:
    message = one_line(lambda: read(write(tmp_path / "p.txt", lines)))
    assert f"holds {found} prompts instead of 200 prompts on 5 lines each" in message


def test_without_the_file_everything_else_works_and_its_use_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    listed = CliRunner().invoke(main, ["list"])
    assert listed.exit_code == 0
    assert "drawbench" in listed.output
    build = registry.load("suites", "drawbench")
    assert one_line(build).startswith("asset drawbench_prompts is missing; run `bench assets fetch drawbench_prompts`")


def test_a_file_of_another_edition_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    (tmp_path / "assets").mkdir()
    write(tmp_path / "assets" / "drawbench_prompts.txt", mixed())
    assert "asset drawbench_prompts is not what it should be: SHA-256" in one_line(registry.load("suites", "drawbench"))


@with_the_file
def test_the_suite_is_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assets.fetch("drawbench_prompts", tmp_path, SHARED)
    suite = registry.load("suites", "drawbench")()
    (prompts,) = suite.prompt_sets
    assert (len(prompts.prompts), prompts.repeats) == (200, 5)
    assert (suite.sampler.steps, suite.sampler.guidance_scale, suite.sampler.resolution) == (40, 4.5, 512)
    assert prompts.prompts[4].text == "An elephant under the sea."
    assert any("Schönhausen" in prompt.text for prompt in prompts.prompts)
    seeds = {suite.noise_seed("drawbench", p, repeat) for p in prompts.prompts for repeat in range(5)}
    assert len(seeds) == 1000
    for role in ("aesthetic", "clipscore"):
        assert registry.load("metrics", suite.roles[role])().name in prompts.metrics
