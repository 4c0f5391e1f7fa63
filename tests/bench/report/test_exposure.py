"""The section on exposure bias: paired differences to the base, worked out by hand from a few readings."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_run import FakeRun
from page_text import page_text

from bench.report import render_report
from bench.report.exposure import Exposure, exposure, exposure_csv, grids, notes, sentences
from bench.report.study import read_study

LEVELS = (0.5, 0.25)
PAIRS = (0, 1, 2, 3)
PROBES = [
    {"name": "slowness", "label": "Slowness", "version": 1, "ideal": 0.0},
    {"name": "one_step_gap", "label": "Gap", "version": 1, "ideal": 0.0, "weight": "sigma_squared"},
    {"name": "velocity_norm", "label": "Length", "version": 1, "ideal": 1.0, "relative": True},
]
Value = Callable[[str, float, int], float]


def of_base(probe: str, sigma: float, pair: int) -> float:
    return 2.0 + pair + sigma


def write(run: FakeRun, folder: str, value: Value, **about: Any) -> None:
    head = {"v": 1, "pairs": {"count": 4, "identity": "a"}, "sigmas": [1, 0.5, 0.25, 0], "scales": [1.0, 4.5]}
    run.write(f"{folder}/probes.json", head | {"probes": PROBES} | about)
    run.lines(
        f"{folder}/probes.jsonl",
        [
            {"probe": probe["name"], "version": 1, "guidance": scale, "pair": pair, "start": 1.0, "sigma": sigma,
             "steps": 1, "value": value(str(probe["name"]), sigma, pair)}
            for probe in PROBES for scale in (1.0, 4.5) for sigma in LEVELS for pair in PAIRS
        ],
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    made = FakeRun(tmp_path / "demo")
    made.base()
    write(made, "base/evaluations/0/probes/pretty", of_base)
    return made


def trained(run: FakeRun, method: str, value: Value, seed: int = 0, probes: tuple[str, ...] = (), **about: Any) -> None:
    name = run.job(method, 0.1, seed=seed)
    path = run.folder / name / "job.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trained_probes": list(probes)}))
    for evaluation in sorted((run.folder / name / "evaluations").iterdir()):
        write(run, f"{name}/evaluations/{evaluation.name}", value, **about)


def read(run: FakeRun) -> Exposure:
    found = exposure(read_study([run.folder]))
    assert found is not None
    return found


def test_differences_are_those_of_each_pair_and_their_mean_is_over_levels(run: FakeRun) -> None:
    """Less by .5 at the level 1/2 and by 1 at 1/4, and twice as long. Gaps weigh 4 to 1."""
    less = {0.5: 0.5, 0.25: 1.0}
    trained(
        run, "soar", lambda probe, s, pair: of_base(probe, s, pair) * 2 if probe == "velocity_norm" else
        of_base(probe, s, pair) - less[s],
    )  # fmt: skip
    (line,) = read(run).last
    slow, gap, norm = (line.measures[name, 4.5] for name in ("slowness", "one_step_gap", "velocity_norm"))
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
    mean = line.measures["slowness", 1.0].mean
    assert line.seeds == 2 and mean.mean == pytest.approx(0.25)  # the mean of -1, 0, 1, 2, halved
    assert -0.5 <= mean.low < 0 < mean.high <= 1.0


def test_the_sentences_say_who_reduced_what_and_what_it_trained_on(run: FakeRun) -> None:
    trained(run, "soar", lambda p, s, pair: of_base(p, s, pair) / 2, probes=("one_step_gap",))
    trained(run, "sft", lambda p, s, pair: of_base(p, s, pair) * 2)
    said = "at guidance 4.5, 0 without bias, beside the base: nearer are soar by 50%"
    told = sentences(read(run))
    assert f"Gap {said} †; farther are sft by 100%." in told and f"Slowness {said}; farther are sft by 100%." in told
    assert len(told) == 4  # a length has no value without bias but the base's own
    assert any(line.startswith("† The measure is in the method's own loss") for line in notes(read(run)))
    without, _ = grids(read(run))
    assert without.headers == ["Guidance 1", "Slowness", "Gap", "Length"]
    assert [row[0] for row in without.rows] == ["base", "soar", "sft"]
    assert without.rows[1][2].endswith("↓ †") and without.rows[2][1].endswith("↑")


def test_readings_of_other_pairs_are_left_out_by_name(run: FakeRun) -> None:
    trained(run, "soar", of_base)
    trained(run, "sft", of_base, pairs={"count": 4, "identity": "b"})
    found = read(run)
    assert [line.method for line in found.last] == ["soar"]
    assert any("left out: sft--pretty--s0" in line for line in notes(found))


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
        if row["pair"] == 3 and row["sigma"] == 0.25:
            row["error"] = "not a finite number"
            del row["value"]
    run.lines(path.relative_to(run.folder).as_posix(), rows)
    measure = read(run).last[0].measures["slowness", 1.0]
    assert measure.pairs == 3 and measure.mean.mean == pytest.approx(1.0)


def test_the_page_has_the_section_where_there_are_readings_and_nothing_of_it_elsewhere(
    run: FakeRun, tmp_path: Path
) -> None:
    trained(run, "soar", lambda p, s, pair: of_base(p, s, pair) / 2)
    written = {path.name for path in render_report([run.folder], tmp_path / "report")}
    assert {"exposure.md", "exposure.csv", "exposure.png", "exposure.svg"} <= written
    page = page_text(tmp_path / "report")
    assert '<h2 id="exposure">Exposure bias</h2>' in page and "0 without bias, beside the base" in page
    for path in run.folder.rglob("probes.json"):
        path.unlink()
    written = {path.name for path in render_report([run.folder], tmp_path / "report")}
    assert not any(name.startswith("exposure") for name in written)
    assert "xposure" not in page_text(tmp_path / "report")
    assert not (tmp_path / "report/exposure.md").exists()
