"""``bench list``: what it says of a method is what the method's class says, and costs are those of the kept run."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_run import BUDGET, FakeRun
from plugin_files import SOUND, changed, write

from bench import plugins, records, registry
from bench.cli import costs, listing, main
from bench.errors import BenchError

NOT_MEASURED = "cost per step not measured"


@pytest.fixture(autouse=True)
def wide(monkeypatch) -> None:
    """A terminal in which no line is folded, unless a test has another."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Path:
    """No costs are kept unless a test writes them here."""
    monkeypatch.setattr(costs, "PATH", tmp_path / "kept" / "measured.json")
    return costs.PATH


def listed() -> dict[str, list[str]]:
    """Paper, needs and cost of each method, as ``bench list methods`` prints them."""
    result = CliRunner().invoke(main, ["list", "methods"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    names = list(registry.table("methods"))
    start = 2 + max(map(len, names)) + 2
    for number, name in enumerate(names):
        first, second = lines[2 * number : 2 * number + 2]
        assert first[:start].strip() == name and first[start:] == registry.summary("methods", name)
        assert second[:start].strip() == "" and second[start] != " "
    return {name: lines[2 * number + 1].strip().split(" | ") for number, name in enumerate(names)}


@pytest.mark.parametrize("name", registry.BUILT_IN["methods"])
def test_what_is_read_of_a_method_is_what_its_class_says(name):
    method, (paper, needs, cost) = plugins.load(name), listed()[name]
    assert paper == method.traits.paper and cost == NOT_MEASURED
    said = needs.removeprefix("needs ").removesuffix(" (by default)").split(", ")
    assert said == [key.replace("_", " ") for key, value in asdict(method.needs).items() if value]
    assert needs.endswith(" (by default)") == ("needs_of" in vars(method))


# -- other people's methods --------------------------------------------------------------------------------------------

PAPER = changed('traits = Traits(*["-"] * 8)', 'traits = Traits(*["-"] * 7, paper="arXiv 0000.00000")')


@pytest.mark.parametrize("name", registry.BUILT_IN["methods"])
def test_every_setting_says_what_it_is_or_where_its_default_comes_from(name):
    fields = registry.load("methods", name).Config.model_fields
    assert [key for key, field in fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("source", "attribute", "says"),
    [
        (SOUND, "Plain", ["paper not read", "needs pairs"]),
        (PAPER, "Plain", ["arXiv 0000.00000", "needs pairs"]),
        (SOUND.replace("needs = Needs", "needs: ClassVar[Needs] = Needs"), "Plain", ["paper not read", "needs pairs"]),
        (PAPER + '\n\nclass Own(Plain):\n    """Own."""\n', "Own", ["arXiv 0000.00000", "needs pairs"]),
        (
            PAPER + '\n\nclass Own(Plain):\n    """Own."""\n\n    needs = Needs(prompts=True, reward=True)\n',
            "Own",
            ["arXiv 0000.00000", "needs prompts, reward"],
        ),
        (SOUND.replace("Needs(pairs=True)", "Needs()"), "Plain", ["paper not read", "needs nothing"]),
        ("from elsewhere import Plain\n", "Plain", ["paper not read", "needs not read"]),
        (None, "Plain", ["paper not read", "needs not read"]),
    ],
)
def test_an_installed_method_is_listed_with_what_can_be_read(tmp_path, monkeypatch, source, attribute, says):
    if source is not None:
        write(tmp_path, source, "listed_from_afar")
    point = EntryPoint("a_name_of_twenty_letters", f"listed_from_afar:{attribute}", "bench.methods")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "entry_points", lambda *, group: [point] if group == "bench.methods" else [])
    registry.table.cache_clear()
    registry.summary.cache_clear()
    try:
        assert listed()[point.name] == [*says, NOT_MEASURED]
    finally:
        registry.table.cache_clear()
        registry.summary.cache_clear()


def test_a_method_of_a_file_is_listed_too(tmp_path):
    plugins.register(write(tmp_path, SOUND))
    assert list(registry.table("methods"))[-1] == "mine"
    assert "mine" in listed()


# -- one kind ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in listing.KINDS if kind != "methods"])
def test_one_kind_is_its_part_of_the_whole_list(kind):
    whole, part = (CliRunner().invoke(main, ["list", *arguments]).output for arguments in ([], [kind]))
    lines = part.splitlines()
    summaries = listing.summaries(kind)
    assert len(lines) == len(summaries) and f"{kind}:\n{part}" in whole
    assert len({line.index(summaries[line.split()[0]]) for line in lines}) == 1  # a column


def test_an_unknown_kind_ends_in_one_line():
    result = CliRunner().invoke(main, ["list", "method"])
    assert (result.exit_code, result.output) == (1, "bench: unknown kind 'method'; did you mean 'methods'?\n")


# -- narrow terminals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], *([kind] for kind in listing.KINDS), ["--config", "leap_align"]])
@pytest.mark.parametrize("columns", [None, 60, 120])
def test_no_line_is_wider_than_the_terminal_and_none_loses_a_word(monkeypatch, run, kept, arguments, columns):
    records.write_json(kept, costs.measure(run.folder, "sft", "2-core CPU"))
    whole = CliRunner().invoke(main, ["list", *arguments]).output
    monkeypatch.delenv("COLUMNS") if columns is None else monkeypatch.setenv("COLUMNS", str(columns))
    shown = CliRunner().invoke(main, ["list", *arguments]).output
    assert max(map(len, shown.splitlines())) <= (columns or 80)
    assert shown.replace("|", "").split() == whole.replace("|", "").split()


def test_what_is_said_of_a_method_stands_below_each_other_on_80_columns(monkeypatch, run, kept):
    records.write_json(kept, costs.measure(run.folder, "sft", "2-core CPU"))
    monkeypatch.setenv("COLUMNS", "80")
    lines = CliRunner().invoke(main, ["list", "methods"]).output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("  soar "))
    column = lines[start].index("SOAR:")
    assert [line[column:] for line in lines[start + 2 : start + 5]] == [
        "arXiv 2604.12617", "needs pairs", "a step: 4 x the FLOPs and 1 x the time of sft's",
    ]  # fmt: skip
    assert {line[:column].strip() for line in lines[start + 1 : start + 5]} == {""}


# -- costs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path) -> FakeRun:
    """Nine steps of each job, 9.5 s a step: soar twice, at 3 and 5 times the FLOPs of sft's."""
    fake = FakeRun(tmp_path / "measured-run", per_group=1, repeats=1, signs=1)
    fake.job("sft", 0.1, share=0.1, updates=9)
    fake.job("soar", 0.1, share=0.3, updates=9)
    fake.job("soar", 0.1, share=0.5, updates=9, seed=1)
    fake.job("flow_grpo", 0.1, share=0.2, updates=18)
    return fake


def test_costs_are_means_over_jobs_relative_to_the_reference(run):
    found = costs.measure(run.folder, "sft", "a machine")
    assert {key: found[key] for key in ("v", "run", "backbone", "commits", "machine", "reference")} == {
        "v": 1, "run": "measured-run", "backbone": "tiny-sd3", "commits": ["f" * 40], "machine": "a machine",
        "reference": "sft",
    }  # fmt: skip
    sft, soar, grpo = (found["methods"][name] for name in ("sft", "soar", "flow_grpo"))
    assert (sft["jobs"], soar["jobs"]) == (1, 2) and set(sft["relative"].values()) == {1.0}
    assert sft["flops_per_step"] == pytest.approx(0.1 * BUDGET / 9) and sft["seconds_per_step"] == 9.5
    assert soar["relative"] == pytest.approx({"flops_per_step": 4, "flops_per_update": 4, "seconds_per_step": 1})
    assert grpo["relative"] == pytest.approx({"flops_per_step": 2, "flops_per_update": 1, "seconds_per_step": 1})


def test_what_else_slowed_a_machine_down_is_not_counted(run):
    path = run.folder / "soar--pretty--s1" / "clock.jsonl"
    slowed = list(records.read_lines(path))
    path.write_text("".join(json.dumps(line | {"seconds": 3 * line["seconds"]}) + "\n" for line in slowed))
    assert costs.measure(run.folder, "sft", "")["methods"]["soar"]["seconds_per_step"] == 9.5


def test_pipelines_and_jobs_that_did_not_finish_are_left_out(run):
    run.job("dpo", 0.1, status="failed", reason="broken")
    name = run.job("sft+soar", 0.1)
    record = records.read_json(run.folder / name / "job.json")
    run.write(f"{name}/job.json", record | {"stages": [{"name": "sft"}, {"name": "soar"}]})
    run.experiment["jobs"].append("sft--pretty--s7")  # not begun
    run.save()
    assert set(costs.measure(run.folder, "sft", "")["methods"]) == {"sft", "soar", "flow_grpo"}


def test_a_run_without_the_reference_ends_in_one_line(run):
    with pytest.raises(BenchError, match=r"unknown finished method in .* 'dpo'; known: flow_grpo, sft, soar"):
        costs.measure(run.folder, "dpo", "")


def test_a_finished_job_that_lost_its_meter_ends_in_one_line(run):
    (run.folder / "soar--pretty--s0" / "meter.jsonl").unlink()
    with pytest.raises(BenchError, match=r"soar--pretty--s0 is finished and lacks meter\.jsonl or clock\.jsonl"):
        costs.measure(run.folder, "sft", "")


def test_measured_costs_are_listed_with_the_run_that_they_come_from(run, kept):
    records.write_json(kept, costs.measure(run.folder, "sft", "2-core CPU"))
    shown = listed()
    assert shown["soar"][-1] == "a step: 4 x the FLOPs and 1 x the time of sft's"
    assert shown["dpo"][-1] == NOT_MEASURED
    last = CliRunner().invoke(main, ["list", "methods"]).output.splitlines()[-1]
    assert last == (
        "Costs are those of the run measured-run: FLOPs are means over its jobs, times are of the fastest "
        "(tiny-sd3, its settings, 2-core CPU, commit fffffff)."
    )
