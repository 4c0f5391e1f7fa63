"""Experiment files that come with the project, by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.errors import BenchError
from bench.experiment import shipped
from bench.experiment.config import read_experiment


def test_a_name_is_the_shipped_file_wherever_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = read_experiment(Path("embedded_main"), {})
    assert (config.name, config.methods, config.subsets) == ("embedded_main", ("sft", "soar"), ("all",))


def test_a_file_at_the_path_goes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("embedded_main").write_text('name = "mine"\n')
    assert read_experiment(Path("embedded_main"), {}).name == "mine"


def test_a_folder_of_that_name_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("embedded_main").mkdir()
    assert read_experiment(Path("embedded_main"), {}).name == "embedded_main"


def test_an_unknown_name_ends_in_one_line_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["run", "paper_mian", "--dry-run"])
    assert result.exit_code == 1
    assert result.output == "bench: unknown experiment 'paper_mian'; did you mean 'paper_main'?\n"
    result = CliRunner().invoke(main, ["tune", "embeded_steps"])
    assert result.output == "bench: unknown experiment 'embeded_steps'; did you mean 'embedded_steps'?\n"


@pytest.mark.parametrize("path", ["paper_main.toml", "elsewhere/paper_main"])
def test_a_path_is_never_taken_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError, match=f"the experiment file {path} is not there"):
        read_experiment(Path(path), {})


@pytest.mark.parametrize("name", shipped.names())
def test_every_shipped_experiment_can_be_read_and_says_in_a_line_what_it_is(name: str) -> None:
    assert read_experiment(Path(name), {}).name == name
    assert 40 < len(shipped.summary(name)) < 120 and shipped.summary(name).endswith(".")


def test_they_are_listed() -> None:
    result = CliRunner(env={"COLUMNS": "1000"}).invoke(main, ["list", "experiments"])
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines] == [
        "embedded", "embedded_ablation", "embedded_main", "embedded_steps", "paper_ablation",
        "paper_dynamics_aesthetic", "paper_dynamics_clipscore", "paper_main", "paper_qualitative",
    ]  # fmt: skip
    said = "Table 2 of the SOAR paper (arXiv 2604.12617): SD3.5-Medium, + SFT and + SOAR on the full corpus."
    assert [line for line in lines if line.startswith("  paper_main ")] == [f"  {'paper_main':<24}  {said}"]


def test_the_shipped_tuning_is_read_by_the_experiment_that_it_is_of() -> None:
    path = Path(__file__).parents[3] / "reports/reference/tuning/tuned.toml"
    given = {"methods": ("sft", "soar"), "subsets": ("high_aesthetic",), "tuned": str(path)}
    config = read_experiment(Path("embedded"), given)
    assert config.tuned is not None and config.tuned.trials == 6
    assert [config.overrides_of(row)["lr"] for row in config.methods] == [5.22e-05, 4.82e-05]
    assert {row: about.guidance_scale for row, about in config.tuned.row.items()} == {"sft": 2.0, "soar": 2.0}
