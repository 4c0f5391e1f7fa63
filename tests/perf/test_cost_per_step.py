"""The script that keeps what a step of each method costs."""

from __future__ import annotations

import json

import cost_per_step
from fake_run import FakeRun

from bench.cli import costs


def test_it_writes_what_was_measured_and_prints_it(tmp_path, capsys):
    fake = FakeRun(tmp_path / "run", per_group=1, repeats=1, signs=1)
    fake.job("sft", 0.1, share=0.1)
    fake.job("soar", 0.1, share=0.4)
    out = tmp_path / "measured.json"
    cost_per_step.main([str(fake.folder), "--machine", "here", "--out", str(out)])
    assert json.loads(out.read_text()) == costs.measure(fake.folder, "sft", "here")
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("soar"))
    assert row.count("(     4x)") == 2 and row.count("(     1x)") == 1  # FLOPs per step and per update, and seconds
