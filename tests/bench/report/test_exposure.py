"""The section on exposure bias: paired differences to the base, worked out by hand from a few readings."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from fake_readings import PAIRS, of_base, trained, write
from fake_run import FakeRun
from matplotlib.axes import Axes
from page_text import page_text

from bench.errors import BenchError
from bench.report import render_report
from bench.report.exposure import Exposure, Key, Line, Measure, exposure, exposure_csv, grids, notes, sentences
from bench.report.exposure_plots import against_level, over_budget
from bench.report.study import read_study


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    made = FakeRun(tmp_path / "demo")
    made.base()
    write(made, "base/evaluations/0/probes/pretty", of_base)
    return made


def read(run: FakeRun) -> Exposure:
    found = exposure(read_study([run.folder]))
    assert found is not None
    return found


def measure(line: Line, probe: str, guidance: float, of: str = "") -> Measure:
    return line.measures[Key(probe, of, guidance)]


def lines_of(axis: Axes) -> list[list[list[float]]]:
    """x and y of each line of a panel but the base's."""
    return [[list(map(float, data)) for data in line.get_data()] for line in axis.lines[1:]]  # type: ignore[arg-type]


def test_differences_are_those_of_each_pair_and_their_mean_is_over_levels(run: FakeRun) -> None:
    """Less by .5 at the level 1/2 and by 1 at 1/4, and twice as long. Gaps weigh 4 to 1."""
    less = {0.5: 0.5, 0.25: 1.0}
    trained(
        run, "soar", lambda probe, s, pair: of_base(probe, s, pair) * 2 if probe == "velocity_norm" else
        of_base(probe, s, pair) - less[s],
    )  # fmt: skip
    (line,) = read(run).last
    slow, gap, norm = (measure(line, name, 4.5) for name in ("slowness", "one_step_gap", "velocity_norm"))
    assert slow.mean.mean == pytest.approx(-0.75) and gap.mean.mean == pytest.approx(-(4 * 0.5 + 1.0) / 5)
    assert {s: i.mean for s, i in slow.levels.items()} == pytest.approx({0.5: -0.5, 0.25: -1.0})
    assert norm.mean.mean == pytest.approx(1.0) and norm.base == 1.0 and slow.pairs == 4
    assert slow.base == pytest.approx(2 + 1.5 + 0.375)
    # Pairs differ by up to 3, and the differences do not: paired, the interval is a point.
    assert slow.mean.high - slow.mean.low < 1e-9 and slow.mean.excludes_zero


def test_seeds_are_averaged_and_the_interval_is_over_pairs(run: FakeRun) -> None:
    for seed, shift in ((0, 0.0), (1, 1.0)):
        trained(run, "soar", lambda p, s, pair, shift=shift: of_base(p, s, pair) + shift * (pair - 1), seed)
    (line,) = read(run).last
    mean = measure(line, "slowness", 1.0).mean
    assert line.seeds == 2 and mean.mean == pytest.approx(0.25)  # the mean of -1, 0, 1, 2, halved
    assert -0.5 <= mean.low < 0 < mean.high <= 1.0


def test_the_sentences_say_who_reduced_what_and_what_it_trained_on(run: FakeRun) -> None:
    trained(run, "soar", lambda p, s, pair: of_base(p, s, pair) / 2, probes=("one_step_gap",))
    trained(run, "sft", lambda p, s, pair: of_base(p, s, pair) * 2)
    said = "at guidance 4.5, 0 without bias, beside the base: nearer are soar by 50%"
    told = sentences(read(run))
    assert f"Gap {said} †; farther are sft by 100%." in told and f"Slowness {said}; farther are sft by 100%." in told
    assert len(told) == 5  # a length has no value without bias but the base's own
    assert told[0] == (
        "Distance to no bias beside the base, without a method's own measures (†): soar is nearer in 2 and farther in "
        "0 of 2 measures (median of their changes -50%) and sft is nearer in 0 and farther in 4 of 4 measures (median "
        "of their changes +100%)."
    )
    assert any(line.startswith("† The measure is in the method's own loss") for line in notes(read(run)))
    without, _ = grids(read(run))
    assert without.headers == ["Guidance 1", "base", "soar", "sft"]
    assert [row[0] for row in without.rows] == ["Slowness", "Gap", "Length"]
    assert without.rows[1][2].endswith("↓ †") and without.rows[0][3].endswith("↑")


def test_a_change_from_nearly_no_bias_is_said_in_numbers(run: FakeRun) -> None:
    """Of a base that is nearly right, per cent would be thousands."""
    trained(run, "soar", lambda p, s, pair: of_base(p, s, pair) * 11)
    said = next(line for line in sentences(read(run)) if line.startswith("Slowness"))
    base = measure(read(run).last[0], "slowness", 1.0).base
    assert said.endswith(f"farther are soar from {base:.2g} to {11 * base:.2g}.") and "%" not in said


def test_readings_after_other_numbers_of_steps_are_measures_of_their_own(run: FakeRun) -> None:
    """One step from 1 and from 1/2, and two from 1: at the level 1/4 two readings, on two lines."""
    trained(run, "soar", of_base)
    ways = {(1.0, 0.5, 1): 0.0, (0.5, 0.25, 1): 1.0, (1.0, 0.25, 2): 5.0}
    for path in run.folder.rglob("probes.jsonl"):
        more = 0.0 if "base" in path.parts else 1.0
        rows = [
            {"probe": "slowness", "version": 1, "part": "held_out", "guidance": 1.0, "pairs": [*PAIRS],
             "start": start, "sigma": sigma, "steps": steps, "values": [3.0 + more * shift] * 4}
            for (start, sigma, steps), shift in ways.items()
        ]  # fmt: skip
        run.lines(path.relative_to(run.folder).as_posix(), rows)
    found = read(run)
    (line,) = found.last
    one, two = (measure(line, "slowness", 1.0, way) for way in ("1 step", "2 steps"))
    assert {s: i.mean for s, i in one.levels.items()} == {0.5: 0.0, 0.25: 1.0} and one.mean.mean == 0.5
    assert {s: i.mean for s, i in two.levels.items()} == {0.25: 5.0}
    assert [row[0] for row in grids(found)[0].rows] == ["Slowness, 1 step", "Slowness, 2 steps"]
    drawn = against_level(read_study([run.folder]), found)
    panels = {axis.get_title(): lines_of(axis) for axis in drawn.axes if axis.get_visible()}
    assert panels == {"Slowness, 1 step": [[[0.25, 0.5], [1.0, 0.0]]], "Slowness, 2 steps": [[[0.25], [5.0]]]}


def test_paths_to_the_end_are_one_measure_by_their_starts_unless_a_start_has_several(run: FakeRun) -> None:
    trained(run, "soar", of_base)
    for path in run.folder.rglob("probes.jsonl"):
        rows = [
            {"probe": probe, "version": 1, "part": "held_out", "guidance": 1.0, "pairs": [0], "start": start,
             "sigma": 0.0, "steps": steps, "values": [1.0]}
            for probe, ways in (("slowness", {(0.5, 2), (0.25, 1)}), ("velocity_norm", {(0.5, 2), (0.5, 4), (0.25, 2)}))
            for start, steps in sorted(ways)
        ]  # fmt: skip
        run.lines(path.relative_to(run.folder).as_posix(), [*rows])
    measures = read(run).last[0].measures
    assert {(key.probe, key.of): [*of.levels] for key, of in measures.items()} == {
        ("slowness", ""): [0.25, 0.5],
        ("velocity_norm", "2 steps"): [0.25, 0.5],
        ("velocity_norm", "4 steps"): [0.5],
    }


def test_what_fits_pairs_of_training_better_than_held_out_ones_is_shown_as_a_gap(run: FakeRun) -> None:
    """The base's loss is 3 on both. The method's is 2 on held-out pairs and 1, 1, 2, 2 on those of training."""
    trained(run, "sft", of_base, probes=("slowness",))
    for path in run.folder.rglob("probes.jsonl"):
        loss = {"held_out": [2.0] * 4, "training": [1.0, 1.0, 2.0, 2.0]}
        if "base" in path.parts:
            loss = dict.fromkeys(loss, [3.0] * 4)
        rows = [
            {"probe": "slowness", "version": 1, "part": part, "guidance": 1.0, "pairs": [*PAIRS], "start": 0.5,
             "sigma": 0.5, "steps": 0, "values": values}
            for part, values in loss.items()
        ]  # fmt: skip
        run.lines(path.relative_to(run.folder).as_posix(), rows)
    found = read(run)
    (line,) = found.last
    kinds = ("held-out pairs", "training pairs", "held-out less training pairs")
    held_out, training, gap = (measure(line, "slowness", 1.0, of) for of in kinds)
    assert (held_out.base, held_out.mean.mean, training.base, training.mean.mean) == (3.0, -1.0, 3.0, -1.5)
    assert gap.base == 0.0 and gap.mean.mean == 0.5 and gap.levels[0.5] == gap.mean
    assert 0.0 <= gap.mean.low < 0.5 < gap.mean.high <= 1.0  # as a bootstrap of the pairs of training alone
    (grid,) = grids(found)
    assert [row[0] for row in grid.rows] == [f"Slowness, {of}" for of in kinds]
    assert grid.rows[2][1] == "0" and grid.rows[2][2].endswith("†")
    drawn = against_level(read_study([run.folder]), found)
    assert [axis.get_title() for axis in drawn.axes if axis.get_visible()] == [row[0] for row in grid.rows]


def test_means_are_drawn_over_the_budget_from_the_base_on(run: FakeRun) -> None:
    name = run.job("soar", 0.1)
    steps = sorted((run.folder / name / "evaluations").iterdir(), key=lambda path: int(path.name))
    for number, evaluation in enumerate(steps, 1):
        value = lambda probe, s, pair, number=number: of_base(probe, s, pair) - number  # noqa: E731
        write(run, f"{name}/evaluations/{evaluation.name}", value)
    study = read_study([run.folder])
    drawn = over_budget(study, read(run))
    panels = {axis.get_title(): axis for axis in drawn.axes if axis.get_visible()}
    assert set(panels) == {"Slowness", "Gap", "Length"}
    ((shares, means),) = lines_of(panels["Slowness"])
    assert shares == pytest.approx([0, *study.fractions], abs=0.05) and means == pytest.approx([0, -1, -2, -3])
    assert panels["Slowness"].get_ylabel() == "difference to the base"
    assert panels["Length"].get_ylabel() == "ratio to the base, less 1"


def test_a_measure_at_low_levels_alone_has_an_empty_panel(run: FakeRun) -> None:
    """As after four steps: the only level that several steps lead to is the last, of a weighted measure."""
    trained(run, "soar", of_base)
    for path in run.folder.rglob("probes.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        low = [row | {"sigma": 0.01} for row in rows if row["probe"] == "one_step_gap" and row["sigma"] == 0.25]
        others = [row for row in rows if row["probe"] != "one_step_gap"]
        run.lines(path.relative_to(run.folder).as_posix(), others + low)
    drawn = against_level(read_study([run.folder]), read(run))
    panels = {axis.get_title(): lines_of(axis) for axis in drawn.axes if axis.get_visible()}
    assert panels["Gap"] == [] and len(panels["Slowness"]) == 1


def test_readings_without_a_value_make_no_section(run: FakeRun, tmp_path: Path) -> None:
    trained(run, "soar", of_base)
    for path in run.folder.rglob("probes.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        errors = [row | {"values": [None] * 4, "error": "not a finite number"} for row in rows]
        run.lines(path.relative_to(run.folder).as_posix(), errors)
    assert exposure(read_study([run.folder])) is None


LINE = {"v": 1, "probe": "slowness", "version": 1, "part": "held_out", "guidance": 1.0, "pairs": [0], "start": 1.0,
        "sigma": 0.5, "steps": 1, "values": [1.0]}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("probes.json", "[]", "probes.json is not a record"),
        ("probes.json", '{"v": 9}', "probes.json is not a record this version reads"),
        ("probes.json", '{"v": 1}', "probes.json is not a record this version reads .pairs: field required"),
        ("probes.jsonl", '{"probe": 7}\n', "probes.jsonl is not a record this version reads"),
        (
            "probes.jsonl",
            "",
            "probes.jsonl does not fit the probes.json beside it, which names probes, and there are no",
        ),
        (
            "probes.jsonl",
            json.dumps(LINE | {"values": ["x"]}) + "\n",
            "probes.jsonl is not a record this version reads",
        ),
        ("probes.jsonl", json.dumps(LINE | {"sigma": None}) + "\n", "its values are of no level"),
        ("probes.jsonl", json.dumps(LINE | {"values": [1.0, 2.0]}) + "\n", "it has not one value for each pair"),
        ("probes.jsonl", json.dumps(LINE | {"values": [None]}) + "\n", "it has neither all values nor an error"),
        ("probes.jsonl", json.dumps(LINE | {"pairs": []}) + "\n", "pairs: list should have at least 1 item"),
        ("probes.jsonl", json.dumps(LINE | {"probe": "strange"}) + "\n", "which does not name the probe strange"),
        ("probes.jsonl", json.dumps(LINE | {"check": "0"}) + "\n", "delete it and the probes.json beside it"),
    ],
)
@pytest.mark.parametrize("of", ["base", "soar"])
def test_damaged_readings_end_in_one_line(run: FakeRun, of: str, name: str, text: str, says: str) -> None:
    trained(run, "soar", of_base)
    for path in run.folder.glob(f"{of}*/**/{name}"):
        path.write_text(text)
    with pytest.raises(BenchError, match=says):
        exposure(read_study([run.folder]))


def test_readings_of_other_pairs_are_left_out_by_name(run: FakeRun) -> None:
    trained(run, "soar", of_base)
    trained(run, "sft", of_base, pairs={"count": 4, "identity": "b"})
    found = read(run)
    assert [line.method for line in found.last] == ["soar"]
    assert any("left out: sft--pretty--s0" in line for line in notes(found))


def test_where_all_are_of_other_pairs_the_section_says_so(run: FakeRun, tmp_path: Path) -> None:
    trained(run, "sft", of_base, pairs={"count": 4, "identity": "b"})
    written = {path.name for path in render_report([run.folder], tmp_path / "report")}
    assert {name for name in written if name.startswith("exposure")} == {"exposure.md"}
    text = (tmp_path / "report/exposure.md").read_text()
    for said in ("No row can be compared with the base.", "left out: sft--pretty--s0"):
        assert said in text and said in page_text(tmp_path / "report")
    assert "95 %" not in text.split("No row")[1]


def test_every_share_of_the_budget_is_in_the_table_of_numbers(run: FakeRun) -> None:
    trained(run, "soar", of_base)
    rows = list(csv.DictReader(io.StringIO(exposure_csv(read(run)))))
    assert len({row["fraction"] for row in rows}) == len(read_study([run.folder]).fractions) > 1
    assert {row["sigma"] for row in rows} == {"mean", "0.5", "0.25"}
    assert all(float(row["minus_base"]) == 0 for row in rows)


def test_a_pair_without_a_value_is_left_out_everywhere(run: FakeRun) -> None:
    trained(run, "soar", lambda p, s, pair: of_base(p, s, pair) + (100 if pair == 3 else 1))
    (path,) = run.folder.glob("base/**/probes.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["sigma"] == 0.25:
            row["error"], row["values"][3] = "not a finite number", None
    run.lines(path.relative_to(run.folder).as_posix(), rows)
    slow = measure(read(run).last[0], "slowness", 1.0)
    assert slow.pairs == 3 and slow.mean.mean == pytest.approx(1.0)


def test_the_page_has_the_section_where_there_are_readings_and_nothing_of_it_elsewhere(
    run: FakeRun, tmp_path: Path
) -> None:
    trained(run, "soar", lambda p, s, pair: of_base(p, s, pair) / 2)
    written = {path.name for path in render_report([run.folder], tmp_path / "report")}
    files = {"exposure.md", "exposure.csv", "exposure.png"}
    assert files | {"exposure_budget.png"} <= written
    page = page_text(tmp_path / "report")
    assert '<h2 id="exposure">Exposure bias</h2>' in page and "0 without bias, beside the base" in page
    for path in run.folder.rglob("probes.json"):
        path.unlink()
    written = {path.name for path in render_report([run.folder], tmp_path / "report")}
    assert not any(name.startswith("exposure") for name in written)
    assert "xposure" not in page_text(tmp_path / "report")
    assert not (tmp_path / "report/exposure.md").exists()
