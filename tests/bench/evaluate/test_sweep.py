"""Sweeps over samplers: any product of steps, solvers, guidance and remedies, each a row on the same noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
from click.testing import CliRunner

from bench import records
from bench.cli import main
from bench.errors import BenchError
from bench.evaluate.rows import EvaluationConfig, evaluate
from bench.experiment.run import Workspace
from bench.machine.progress import Progress
from bench.report import guidance
from bench.report.study import read_study
from bench.suite import Sampler

Run = Callable[..., tuple[Path, dict[str, str]]]


@pytest.fixture
def run(world: fakes.World, tmp_path: Path) -> Iterator[Run]:
    def evaluated(**options: Any) -> tuple[Path, dict[str, str]]:
        config = EvaluationConfig(what=("fake",), suite="fake", max_sequence_length=12, **options)
        outcome = evaluate(config, Workspace(tmp_path / "cache", tmp_path / "runs"), Progress(quiet=True))
        return outcome.folder, outcome.failed

    with fakes.registered(world.backbone):
        yield evaluated


def pictures(row: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((row / "evaluations/0/images").iterdir())}


def test_a_product_has_a_row_for_each_combination(run: Run) -> None:
    folder, failed = run(steps=(2, 3), solver=("euler", "heun"), guidance=(1, 2))
    assert not failed and folder.name == "sweep-fake"
    rows = {path.name.partition("--fake")[2]: path for path in folder.glob("evaluated--*")}
    assert set(rows) == {f"--n{n}--{s}--cfg{g}" for n in (2, 3) for s in ("euler", "heun") for g in (1, 2)}
    made = records.read_json(rows["--n3--heun--cfg1"] / "job.json")
    assert made["label"] == "fake, 3 steps, heun, CFG 1" and made["evaluated"]["sweep"] == {"name": "fake"}
    sampler = {"steps": 3, "guidance_scale": 1.0, "resolution": 16, "levels": "diffusers-0.42"}
    assert made["evaluated"]["sampler"] == sampler | {"solver": "heun"}
    # In two steps Heun's method is Euler's to the last level but one, and then differs.
    assert len({tuple(pictures(row).values()) for row in rows.values()}) == 8


def test_the_suites_own_sampler_draws_what_it_always_does(run: Run) -> None:
    swept, _ = run(steps=(2,), solver=("euler",), guidance=(2,))
    plain, _ = run()
    (one,), (two,) = (list(folder.glob("evaluated--*")) for folder in (swept, plain))
    assert pictures(one) == pictures(two)
    sampler = records.read_json(two / "job.json")["evaluated"]["sampler"]
    assert not {"solver", "remedy"} & sampler.keys()  # records of every release have had none


def test_one_remedy_is_a_row_beside_the_others_and_several_are_a_sweep(run: Run) -> None:
    folder, failed = run(remedy=("epsilon_scaling=1.05",))
    run()
    assert not failed and folder.name == "evaluate-fake"
    study = read_study([folder])
    assert {job.label for job in study.evaluated} == {"fake", "fake, epsilon_scaling=1.05"} and not study.swept
    several, _ = run(remedy=("epsilon_scaling=1", "epsilon_scaling=1.05"), name="several")
    rows = sorted(several.glob("evaluated--*"))
    assert [row.name.rpartition("--")[2] for row in rows] == ["epsilon_scaling-1", "epsilon_scaling-1.05"]
    (plain,) = (row for row in folder.glob("evaluated--*") if row.name.endswith("fake"))
    assert pictures(rows[0]) == pictures(plain) != pictures(rows[1])  # a scale of 1 does nothing


def test_a_report_has_steps_along_its_axis_and_a_line_for_each_solver(run: Run) -> None:
    folder, _ = run(steps=(2, 3), solver=("euler", "heun"))
    made = guidance.sweep(read_study([folder]))
    assert made.axis.setting == "steps" and made.scales == [2.0, 3.0] and made.axis.own == 2
    assert [model.name for model in made.models] == ["fake, euler", "fake, heun"] and made.file == "sweep"
    (grid,) = guidance.grids(made, "{}")
    assert grid.headers[1:] == ["2 steps (the suite's)", "3 steps"] and len(grid.rows) == 2


def test_a_sweep_of_names_has_them_along_its_axis(run: Run) -> None:
    folder, _ = run(solver=("heun", "euler"))
    study = read_study([folder])
    made = guidance.sweep(study)
    (grid,) = guidance.grids(made, "{}")
    assert sorted(grid.headers[1:]) == ["euler (the suite's)", "heun"]
    assert guidance.guidance_figures(study, made)[f"{made.file}.svg"].startswith(b"<?xml")


def test_lists_of_noise_levels_are_swept_by_their_names(run: Run) -> None:
    folder, failed = run(levels=("diffusers-0.42", "shifted"), steps=(2, 3))
    assert not failed and folder.name == "sweep-fake"
    rows = {path.name.partition("--fake--")[2]: path for path in folder.glob("evaluated--*")}
    assert set(rows) == {f"n{n}--{name}" for n in (2, 3) for name in ("diffusers-0.42", "shifted")}
    assert records.read_json(rows["n3--shifted"] / "job.json")["evaluated"]["sampler"]["levels"] == "shifted"
    assert pictures(rows["n3--shifted"]) != pictures(rows["n3--diffusers-0.42"])
    made = guidance.sweep(read_study([folder]))
    assert made.axis.setting == "steps" and {model.name for model in made.models} == {
        "fake, diffusers-0.42",
        "fake, shifted",
    }


def test_a_sweep_of_lists_alone_has_them_along_its_axis(run: Run) -> None:
    folder, _ = run(levels=("shifted", "diffusers-0.42"))
    (grid,) = guidance.grids(guidance.sweep(read_study([folder])), "{}")
    assert sorted(grid.headers[1:]) == ["diffusers-0.42 (the suite's)", "shifted"]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--levels", "shiftd"], "unknown list of noise levels 'shiftd'; did you mean 'shifted'?"),
        (["--levels", "shifted,shifted"], "--levels takes names with commas between, each once, not 'shifted,shifted'"),
        (["--steps", "0,4"], "--steps takes whole numbers from 1 to 1000 with commas between, each once"),
        (["--steps", "4,4"], "--steps takes whole numbers from 1 to 1000 with commas between, each once"),
        (["--steps", "4,x"], "--steps takes whole numbers from 1 to 1000 with commas between, each once"),
        (["--solver", "eular"], "unknown solver 'eular'; did you mean 'euler'?"),
        (["--solver", "heun,heun"], "--solver takes names with commas between, each once, not 'heun,heun'"),
        (["--remedy", "epsilon=2"], "unknown remedy 'epsilon'"),
        (["--remedy", "epsilon_scaling"], "the remedy epsilon_scaling is written epsilon_scaling=SCALE with numbers"),
        (["--remedy", "epsilon_scaling=0"], "epsilon scaling divides by a scale above 0, not by 0"),
        (["--guidance", "0.5"], "--guidance takes numbers of at least 1"),
    ],
)
def test_what_cannot_be_drawn_ends_in_one_line(flags: list[str], line: str) -> None:
    done = CliRunner().invoke(main, ["evaluate", "tiny-sd3", *flags])
    assert isinstance(done.exception, SystemExit | BenchError) and line in done.output + str(done.exception)


def test_a_remedy_that_a_solver_cannot_have_is_refused_before_anything_is_drawn(run: Run) -> None:
    folder, failed = run(remedy=("differential_correction=0.1:0.2",), solver=("heun",))
    assert failed == {
        "fake": "differential_correction changes where Euler steps lead, and heun takes none; choose euler"
    }
    assert not list(folder.glob("evaluated--*"))


def test_a_sampler_without_a_remedy_records_none() -> None:
    sampler = Sampler(2, 1.0, 16)
    without = records.document(sampler.record())
    assert not {"solver", "remedy"} & without.keys()
    remedied = replace(sampler, remedy="epsilon_scaling=1.005").record()
    assert records.document(remedied) == without | {"remedy": "epsilon_scaling=1.005"}
    with pytest.raises(BenchError, match="unknown solver 'rk4'"):
        replace(sampler, solver="rk4")
