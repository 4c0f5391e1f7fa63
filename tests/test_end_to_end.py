"""The commands a newcomer types, on the shipped backbone with a corpus and a suite small enough for a test."""

from __future__ import annotations

import csv
import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from bench import registry
from bench.cli import main
from data_curation.world.corpus import WorldCorpus

SMALL = ["--suite", "smoke", "--budget", "steps=2", "--evaluations", "2", "--name", "small"]
LIGHT = ["--set", "sft.batch_size=4", "--set", "soar.batch_size=2", "--set", "soar.aux_points=2"]
LIGHT += ["--set", "flow_grpo.prompts=2", "--set", "flow_grpo.group_size=2", "--set", "flow_grpo.sampling_steps=2"]


class SmallWorld(WorldCorpus):
    """A few scenes of the real world corpus."""

    def __init__(self, cache: Path) -> None:
        super().__init__(cache, size=64, seed=1)


@pytest.fixture(scope="module")
def small_world() -> object:
    patch, load = pytest.MonkeyPatch(), registry.load
    patch.setattr(registry, "load", lambda kind, name: SmallWorld if name == "world" else load(kind, name))
    yield
    patch.undo()


def bench(folder: Path, *arguments: str) -> Result:
    places = [part for place in ("cache", "runs", "reports") for part in (f"--{place}", str(folder / place))]
    return CliRunner().invoke(main, ["run", *arguments, *places])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, small_world: object) -> Path:
    folder = tmp_path_factory.mktemp("run")
    result = bench(folder, "--methods", "sft,soar,flow_grpo", "--subset", "high_aesthetic", *SMALL, *LIGHT)
    assert result.exit_code == 0, result.output
    return folder


def test_the_run_leaves_the_whole_report(ran: Path) -> None:
    names = {path.name for path in (ran / "reports" / "small").iterdir()}
    assert names == {
        "main_results.md", "main_results.csv", "main_results.tex", "paradigms.md", "compute.md", "compute.csv",
        "training_dynamics.png", "training_dynamics.svg", "training_dynamics.csv", "samples.png", "index.html",
        "differences.md", "differences.csv", "wins.md", "wins.csv", "targets.md", "targets.csv", "pareto.md",
        "pareto.csv", "pictures",
    }  # fmt: skip


def test_every_report_says_first_which_world_it_comes_from(ran: Path) -> None:
    for name in ("main_results.md", "paradigms.md", "compute.md"):
        first = (ran / "reports" / "small" / name).read_text().splitlines()[0]
        assert "shape world" in first


def test_every_job_is_evaluated_at_every_fraction_and_the_base_once(ran: Path) -> None:
    runs = ran / "runs" / "small"
    for method in ("sft", "soar", "flow_grpo"):
        evaluations = sorted((runs / f"{method}--high_aesthetic--s0" / "evaluations").glob("*/evaluation.json"))
        assert [json.loads(path.read_text())["fraction"] for path in evaluations] == [0.5, 1.0]
    assert [path.parent.name for path in (runs / "base" / "evaluations").glob("*/evaluation.json")] == ["0"]


def test_all_methods_are_evaluated_on_the_same_prompts_and_noise(ran: Path) -> None:
    def drawn(path: Path) -> list[tuple[str, int, int]]:
        return [(r["prompt_id"], r["repeat"], r["seed"]) for r in map(json.loads, path.read_text().splitlines())]

    files = sorted((ran / "runs" / "small").glob("*/evaluations/*/samples.jsonl"))
    assert len(files) == 7
    assert all(drawn(path) == drawn(files[0]) for path in files)
    seeds = [seed for _, _, seed in drawn(files[0])]
    assert len(set(seeds)) == len(seeds)


def test_the_same_command_again_keeps_what_is_finished(ran: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (ran / "runs").rglob("*.jsonl")}
    result = bench(ran, "--methods", "sft,soar,flow_grpo", "--subset", "high_aesthetic", *SMALL, *LIGHT)
    assert result.exit_code == 0, result.output
    assert {p: p.stat().st_mtime_ns for p in (ran / "runs").rglob("*.jsonl")} == before


def test_the_report_redraws_identically_from_records_alone(ran: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["report", str(ran / "runs" / "small"), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    report = ran / "reports" / "small"
    files = [path.relative_to(report) for path in report.rglob("*") if path.is_file()]
    assert any(path.parts[0] == "pictures" for path in files)
    for path in files:
        assert (tmp_path / path).read_bytes() == (report / path).read_bytes(), path


BASE = {
    "world_geneval": (0.600, 0.03), "world_clipscore": (0.7831, 0.003), "world_aesthetic": (6.00, 0.06),
    "ocr_rapid": (0.915, 0.03), "world_vendi": (1.640, 0.02), "brightness": (0.7865, 0.003),
}  # fmt: skip
"""What tiny-sd3 scores, and how far rounding elsewhere may move it: by a picture or two that turn out otherwise."""


IMAGES = {"ocr_rapid": "120", "world_vendi": "96"}
"""Images of a column; 480 of the others."""


def test_the_shipped_model_is_evaluated_on_the_embedded_suite(tmp_path: Path) -> None:
    places = [part for place in ("cache", "runs", "reports") for part in (f"--{place}", str(tmp_path / place))]
    done = CliRunner().invoke(main, ["evaluate", "tiny-sd3", "--suite", "embedded", *places])
    assert done.exit_code == 0, done.output
    with (tmp_path / "reports" / "evaluate-embedded" / "main_results.csv").open() as file:
        (row,) = csv.DictReader(file)
    for name, (score, near) in BASE.items():
        assert float(row[f"{name}_mean"]) == pytest.approx(score, abs=near), name
        assert row[f"{name}_n"] == row[f"{name}_N"] == IMAGES.get(name, "480")
    assert "shape world" in done.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--methods", "sfft"), "did you mean 'sft'?"),
        (("--subset", "high_asthetic"), "did you mean 'high_aesthetic'?"),
        (("--suite", "embeded"), "did you mean 'embedded'?"),
        (("--backbone", "tiny-sd4"), "did you mean 'tiny-sd3'?"),
        (("--corpus", "wrld"), "did you mean 'world'?"),
        (("--budget", "flop=1e12"), "did you mean 'flops'?"),
        (("--budget", "flops=-1"), "positive amount"),
        (("--methods", "sft", "--set", "sft.lrr=1"), "did you mean 'lr'?"),
        (("--methods", "sft", "--set", "sft.lr=-1"), "lr"),
        (("--methods", "sft", "--set", "soar.lr=1"), "unknown method in settings"),
        (("no-such-file.toml",), "is not there"),
    ],
)
def test_what_is_mistyped_ends_in_one_line(
    arguments: tuple[str, ...], says: str, tmp_path: Path, small_world: object
) -> None:
    result = bench(tmp_path, *arguments)
    assert result.exit_code == 1
    assert says in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_another_configuration_in_the_same_folder_is_refused(ran: Path) -> None:
    other = bench(ran, "--methods", "sft", "--subset", "high_aesthetic", *SMALL, "--evaluations", "1", *LIGHT[:2])
    assert other.exit_code == 1
    assert "(other fractions)" in other.output


def test_a_budget_too_small_for_one_step_fails_the_job_and_not_the_others(tmp_path: Path, small_world: object) -> None:
    result = bench(
        tmp_path, "--methods", "sft,soar", "--suite", "smoke", "--budget", "flops=1.5e9", "--evaluations", "1",
        "--name", "poor", "--set", "sft.batch_size=1", "--set", "soar.batch_size=1", "--subset", "high_clipscore",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "too small for one step" in result.output
    runs = tmp_path / "runs" / "poor"
    assert json.loads((runs / "sft--high_clipscore--s0" / "status.json").read_text())["status"] == "finished"
    status = json.loads((runs / "soar--high_clipscore--s0" / "status.json").read_text())
    assert status["status"] == "failed"
    assert "too small for one step" in status["reason"]
    assert "failed" in (tmp_path / "reports" / "poor" / "main_results.md").read_text()


def test_curate_scores_with_any_metric_and_shows_how_scores_lie(tmp_path: Path, small_world: object) -> None:
    places = ["--cache", str(tmp_path)]
    shown = CliRunner().invoke(main, ["curate", "--metric", "world_clipscore", *places])
    assert shown.exit_code == 0, shown.output
    assert "50% of 64 pairs score at most" in shown.output
    assert len(list((tmp_path / "scores").rglob("*.parquet"))) == 1
    mistyped = CliRunner().invoke(main, ["curate", "--metric", "world_clipscor", *places])
    assert mistyped.exit_code == 1
    assert "did you mean 'world_clipscore'?" in mistyped.output


def test_doctor_finds_what_the_default_run_needs() -> None:
    examined = CliRunner().invoke(main, ["doctor"])
    assert examined.exit_code == 0, examined.output
    for what in ("torch", "optuna", "tiny-sd3", "cpu", "data_curation", "disk"):
        assert f"ok   {what}:" in examined.output


def test_doctor_holds_packages_to_the_versions_that_are_needed(monkeypatch) -> None:
    installed = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.13.1" if name == "torch" else installed(name))
    examined = CliRunner().invoke(main, ["doctor"])
    assert examined.exit_code == 1
    assert "MISS torch: 1.13.1, but >=2.11 is needed: pip install" in examined.output


@pytest.mark.parametrize(("free", "line"), [(0.2, "MISS disk: 0.2 GiB"), (0.5, "ok   disk: 0.5 GiB")])
def test_doctor_asks_for_the_disk_that_it_names(monkeypatch, free, line) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free * 2**30))
    examined = CliRunner().invoke(main, ["doctor"])
    assert f"{line} free here; the default run needs 0.3" in examined.output
    assert (examined.exit_code == 0) == (free > 0.3)


def test_list_and_help_name_everything() -> None:
    listed = CliRunner().invoke(main, ["list"]).output
    for kind in ("methods", "subsets", "suites", "metrics", "corpora", "backbones"):
        assert all(name in listed for name in registry.table(kind))
    helped = CliRunner().invoke(main, ["--help"]).output
    assert "bench run --methods sft,soar,flow_grpo --subset high_aesthetic" in helped
