"""The wheel holds all that the code opens, and runs where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PARTS = ("bench", "methods", "benchmarks", "data_curation", "experiments")
BEGIN = """
import sys
from pathlib import Path

import bench, benchmarks, data_curation, methods
from bench.cli import main
from bench.experiment import shipped

folders = [shipped.FOLDER, *(Path(part.__path__[0]) for part in (bench, benchmarks, data_curation, methods))]
assert {folder.parent for folder in folders} == {Path(sys.argv.pop(1))}, folders
main(prog_name="bench")
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is made of: building one leaves folders behind."""
    copy = tmp_path_factory.mktemp("source")
    for part in PARTS:
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (needed,) = map(Requirement, tomllib.loads((source / "pyproject.toml").read_text())["build-system"]["requires"])
    if (found := metadata.version(needed.name)) not in needed.specifier:
        pytest.skip(f"a wheel is built by {needed}, and {found} is installed; constraints.txt pins one that does")
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(out), str(source)], check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what ``pip install`` would put into an empty environment."""
    folder = tmp_path_factory.mktemp("site").resolve()
    with ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def bench(installed: Path, folder: Path, *arguments: str) -> str:
    """What the installed command prints in another folder, with nothing of the checkout on its path."""
    run = [sys.executable, "-P", "-c", BEGIN, str(installed), *arguments]
    environment = os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "1000"}
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_every_file_of_the_packages_and_nothing_else(source: Path, wheel: Path) -> None:
    with ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    here = (path.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("*") if path.is_file())
    wanted = {str(path) for path in here if not any(name[0] == "." or name == "__pycache__" for name in path.parts)}
    assert names == wanted
    assert {"experiments/paper_main.toml", "bench/cli/costs.json"} < names


def test_it_lists_in_a_folder_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    lines = bench(installed, tmp_path, "list").splitlines()
    assert {"methods:", "metrics:", "experiments:"} < set(lines) and "not importable" not in "".join(lines)
    assert [line for line in lines if line.startswith("  paper_main ")]


@pytest.mark.slow
def test_it_plans_a_shipped_experiment_in_a_folder_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    first, header, *rest = bench(installed, tmp_path, "run", "paper_main", "--dry-run").splitlines()
    assert first == "paper_main: 2 jobs on stabilityai/stable-diffusion-3.5-medium; nothing is started"
    assert header.startswith("job ") and rest[0].startswith("sft--all--s0 ") and rest[1].startswith("soar--all--s0 ")
