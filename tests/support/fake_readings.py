"""Readings of probes for a ``FakeRun``: three measures at two levels, of four pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fake_run import FakeRun

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
            {"probe": probe["name"], "version": 1, "part": "held_out", "guidance": scale, "pairs": [*PAIRS],
             "start": 1.0, "sigma": sigma, "steps": 1,
             "values": [value(str(probe["name"]), sigma, pair) for pair in PAIRS]}
            for probe in PROBES for scale in (1.0, 4.5) for sigma in LEVELS
        ],
    )  # fmt: skip


def trained(
    run: FakeRun,
    method: str,
    value: Value,
    seed: int = 0,
    probes: tuple[str, ...] = (),
    subset: str = "pretty",
    **about: Any,
) -> None:
    name = run.job(method, 0.1, seed=seed, subset=subset)
    path = run.folder / name / "job.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trained_probes": list(probes)}))
    for evaluation in sorted((run.folder / name / "evaluations").iterdir()):
        write(run, f"{name}/evaluations/{evaluation.name}", value, **about)
