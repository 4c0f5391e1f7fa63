"""``bench new method``: what it writes keeps every promise, passes its own tests, and runs at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import plugins, registry
from bench.check import broken, check_method
from bench.cli import main
from bench.experiment.config import read_experiment
from bench.scaffold import TEMPLATES


def new(*arguments: str) -> tuple[int, list[str]]:
    result = CliRunner().invoke(main, ["new", "method", *arguments])
    return result.exit_code, result.output.splitlines()


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    status, lines = new("far_away")
    assert status == 0 and lines[0] == "wrote far_away"
    return tmp_path / "far_away"


def test_it_writes_a_package_that_keeps_every_promise(package):
    found = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert found == {path.replace("{name}", "far_away") for path in TEMPLATES}
    assert not [path for path in package.rglob("*") if path.is_file() and "{name}" in path.read_text()]
    assert plugins.named("far_away/far_away.py") == "far_away"
    method = registry.load("methods", "far_away")
    assert method.__name__ == "FarAway" and broken(check_method(method)) == []
    assert method.embedded.keys() <= method.Config.model_fields.keys()


def test_the_lines_that_it_prints_are_commands_that_work(package, monkeypatch):
    monkeypatch.chdir(package.parent)
    (package / "scratch").mkdir()
    new("other", "--out", str(package / "scratch" / "other"))
    assert (package / "scratch" / "other" / "other.py").is_file()
    config = read_experiment(package / "experiment.toml", {})
    assert config.methods == ("sft", "far_away") and config.plugins == (str(package / "far_away.py"),)
    assert config.overrides_of("far_away") == {"time_location": 0.5}
    result = CliRunner().invoke(main, ["run", "far_away/experiment.toml", "--dry-run"])
    assert result.exit_code == 0 and "far_away--high_aesthetic--s0" in result.output, result.output


def test_its_own_tests_pass(package):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(package / "tests")],
        capture_output=True,
        text=True,
        cwd=package,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout[-3000:]


def test_installed_it_registers_its_name(package, tmp_path, monkeypatch):
    project = tomllib.loads((package / "pyproject.toml").read_text())
    assert project["project"]["name"] == "far-away" and project["tool"]["setuptools"] == {"py-modules": ["far_away"]}
    (point,) = project["project"]["entry-points"]["bench.methods"].items()
    info = package / "far_away-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: far-away\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[bench.methods]\n{point[0]} = {point[1]}\n")
    monkeypatch.syspath_prepend(package)
    registry.table.cache_clear()
    try:
        assert registry.load("methods", "far_away").__name__ == "FarAway"
        assert plugins.named(str(package / "far_away.py")) == "far_away"  # the experiment beside it still holds
        assert plugins.origin("far_away") == {"package": "far-away", "version": "0.1.0"}
    finally:
        sys.modules.pop("far_away", None)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("sft", "there is a method named 'sft' already"),
        ("base", "'base' is a word of experiments already"),
        ("all", "'all' is a word of experiments already"),
        ("torch", "there is a Python module named 'torch' already"),
        ("My-Method", "cannot name a method; take lower-case letters, digits and _"),
        ("class", "cannot name a method"),
        ("../up", "cannot name a method"),
        ("here", "here is there already"),
    ],
)
def test_a_name_that_cannot_be_ends_in_one_line_and_writes_nothing(tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    status, lines = new(name)
    assert status == 1 and len(lines) == 1 and lines[0].startswith("bench: ") and says in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["here"] and not list((tmp_path / "here").iterdir())


def test_the_templates_are_shipped():
    package_data = tomllib.loads((Path(registry.__file__).parents[1] / "pyproject.toml").read_text())
    patterns = package_data["tool"]["setuptools"]["package-data"]["*"]
    assert {f"*{Path(template).suffix}" for template in TEMPLATES.values()} <= set(patterns)


def test_what_cannot_be_written_whole_leaves_nothing(tmp_path, monkeypatch):
    """`bench new` refuses a folder that is there, so half of one would be in its own way."""
    monkeypatch.chdir(tmp_path)
    name = "a" * 254  # a folder may have it, and a file with .py after it may not
    status, lines = new(name)
    assert status == 1 and len(lines) == 1 and "cannot be written: File name too long" in lines[0]
    assert not [path.name for path in tmp_path.iterdir()]
