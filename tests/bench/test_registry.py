"""Names to code: everything listed loads, listing imports nothing, and plugins outside the repository are found."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bench import registry
from bench.errors import BenchError
from bench.machine import doctor

ENTRIES = [(kind, name) for kind, entries in registry.BUILT_IN.items() for name in entries]
SHOWN = ("methods", "subsets", "suites", "metrics", "corpora", "backbones")


@pytest.fixture
def fresh_tables():
    registry.table.cache_clear()
    registry.summary.cache_clear()
    yield
    registry.table.cache_clear()
    registry.summary.cache_clear()


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_loads(kind, name):
    assert registry.load(kind, name) is not None


@pytest.mark.parametrize(("kind", "name"), [entry for entry in ENTRIES if entry[0] in SHOWN])
def test_every_entry_that_is_listed_has_a_summary(kind, name):
    text = registry.summary(kind, name)
    assert text.strip() and "\n" not in text and text != "(not importable)"


def test_summaries_of_one_kind_differ():
    for kind in SHOWN:
        texts = [registry.summary(kind, name) for name in registry.table(kind)]
        assert len(set(texts)) == len(texts), kind


def test_help_and_list_import_no_torch():
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from bench.cli import main\n"
        "for arguments in (['--help'], ['run', '--help'], ['list', 'methods'], ['list']):\n"
        "    result = CliRunner().invoke(main, arguments)\n"
        "    assert result.exit_code == 0, result.output\n"
        "assert 'soar' in result.output\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'pandas', 'numpy', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(BenchError, match="unknown method 'flow_grop'; did you mean 'flow_grpo'"):
        registry.load("methods", "flow_grop")
    with pytest.raises(BenchError, match="unknown corpus 'wold'; did you mean 'world'"):
        registry.load("corpora", "wold")


@pytest.fixture
def plugin(tmp_path, monkeypatch, fresh_tables):
    """A package outside the repository with a method, and one that hides a built-in's name."""
    (tmp_path / "far_away.py").write_text('"""A plugin."""\n\n\nclass Theirs:\n    """Their method."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("theirs", "far_away:Theirs", "bench.methods"),
        EntryPoint("sft", "far_away:Theirs", "bench.methods"),
        EntryPoint("broken", "far_away:Missing", "bench.methods"),
        EntryPoint("absent", "no_such_package_anywhere:X", "bench.methods"),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: [p for p in points if p.group == group])
    monkeypatch.setattr(registry, "entry_points", lambda *, group: [p for p in points if p.group == group])
    yield
    sys.modules.pop("far_away", None)


def test_an_installed_plugin_is_found_and_described(plugin):
    assert list(registry.table("methods"))[-3:] == ["theirs", "broken", "absent"]
    assert registry.load("methods", "theirs").__name__ == "Theirs"
    assert registry.summary("methods", "theirs") == "Their method."


def test_a_plugin_cannot_replace_a_built_in(plugin):
    assert registry.table("methods")["sft"] == "methods.sft:SFT"


@pytest.mark.parametrize("name", ["broken", "absent"])
def test_a_broken_plugin_ends_in_one_line(plugin, name):
    with pytest.raises(BenchError, match=f"methods/{name} .* does not load"):
        registry.load("methods", name)


def test_a_plugin_that_is_not_importable_does_not_break_the_list(plugin):
    assert registry.summary("methods", "absent") == "(not importable)"


def test_a_shadowed_folder_is_named(tmp_path, monkeypatch):
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "benchmarks"}
    for name in kept:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    # setuptools' finder for editable installs would still find our submodules below the other package
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if "Editable" not in getattr(f, "__name__", "")])
    try:
        with pytest.raises(BenchError, match=r"another package named 'benchmarks' shadows this project's folder: .+"):
            registry.load("suites", "smoke")
        assert registry.shadow("benchmarks.suites.smoke") == package / "__init__.py"
        (examined,) = (finding for finding in doctor.examine() if finding.what == "benchmarks")
        assert not examined.ok and examined.detail.endswith(f"uninstall it: {tmp_path}")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
            del sys.modules[name]


def test_nothing_is_shadowed_here():
    assert [registry.shadow(name) for name in ("methods", "benchmarks", "data_curation", "json", "no_such")] == [
        None
    ] * 5


def test_no_method_is_named_outside_its_own_file_and_the_registry():
    root = Path(registry.__file__).parent
    names = set(registry.BUILT_IN["methods"])
    for path in sorted(root.rglob("*.py")):
        if path.name == "registry.py":
            continue
        constants = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
        assert not names & {value for value in constants if isinstance(value, str)}, path


@pytest.mark.parametrize("kind", registry.NAMED)
def test_an_object_with_another_name_than_its_own_is_refused(monkeypatch, fresh_tables, kind):
    """Records and caches would take it for the one that has the name."""
    (name, value), *_ = registry.BUILT_IN[kind].items()
    monkeypatch.setitem(registry.BUILT_IN, kind, registry.BUILT_IN[kind] | {"twin": value})
    registry.table.cache_clear()
    with pytest.raises(BenchError, match=rf"{kind}/twin \(.*\) has the name '{name}'; give it the name 'twin'"):
        found = registry.load(kind, "twin")
        found()
