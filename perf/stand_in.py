"""A run as large as the planned reference comparison, made of copies: for measuring the report, and for nothing else.

    python perf/stand_in.py runs/high_aesthetic /tmp/stand-in
    python perf/report_page.py /tmp/stand-in

Thirteen rows, three subsets, six seeds of four rows and three of the others: 153 jobs with four evaluations each. A row
that the run lacks is a copy of SOAR's. Scores are moved at random, so that rows and seeds differ. Pictures are copied
for the first seed of each row. No number of it is a result.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench import records
from bench.rng import numpy_generator

SIX_SEEDS = ("sft", "soar", "input_perturbation", "mixflow")
THREE_SEEDS = (
    "reflexflow", "flow_grpo", "flow_grpo_fast", "flow_grpo_guard", "diffusion_nft", "leap_align", "dpo", "dpo_own",
    "soar+flow_grpo",
)  # fmt: skip
SUBSETS = ("high_aesthetic", "high_clipscore", "random")
FRACTIONS = (0.25, 0.5, 0.75, 1.0)
FLIPPED, MOVED = 0.1, 0.02
"""Share of scores of 0 and 1 that are turned round, and the standard deviation that is added to others."""


def planned() -> list[tuple[str, str, int]]:
    """Method, subset and seed of each job."""
    jobs = [*product(SIX_SEEDS, SUBSETS, range(6)), *product(THREE_SEEDS, SUBSETS, range(3))]
    return [(method, subset, seed) for method, subset, seed in jobs]


def stand_in(run: Path, out: Path) -> Path:
    """Write the stand-in of a run. Returns its folder."""
    experiment = records.read_json(run / "experiment.json")
    shutil.copytree(run / "base", out / "base")
    probes = next(iter((out / "base").glob("evaluations/0/probes/*")), None)
    for subset in SUBSETS if probes else ():
        if not (place := probes.with_name(subset)).exists():
            shutil.copytree(probes, place)
    names = []
    for method, subset, seed in planned():
        own = run / f"{method}--{SUBSETS[0]}--s0"
        name = f"{method}--{subset}--s{seed}"
        _copy(own if own.is_dir() else run / f"soar--{SUBSETS[0]}--s0", out / name, method, subset, seed)
        names.append(name)
    about = {"jobs": names, "fractions": list(FRACTIONS), "name": "stand-in"}
    records.write_json(out / "experiment.json", experiment | about)
    return out


def _copy(job: Path, out: Path, method: str, subset: str, seed: int) -> None:
    made = records.read_json(job / "job.json")
    made |= {"job": out.name, "method": method, "subset": subset, "seed": seed, "subset_hash": records.digest([subset])}
    records.write_json(out / "job.json", made)
    for name in ("meter.jsonl", "clock.jsonl", "train.jsonl", "status.json"):
        shutil.copy(job / name, out / name)
    meter = list(records.read_lines(job / "meter.jsonl"))
    drawn = sorted(job.glob("evaluations/[0-9]*"), key=lambda path: int(path.name))
    random = numpy_generator("stand-in", method, subset, seed)
    for fraction in FRACTIONS:
        spent = next(line for line in meter if line["flops"] >= fraction * meter[-1]["flops"])
        source, target = drawn[-1 if fraction == 1 else 0], out / "evaluations" / str(spent["step"])
        header = records.read_json(source / "evaluation.json")
        header |= {"fraction": fraction, "step": spent["step"], "configuration": records.configuration(made)}
        header["spent"] = {key: value for key, value in spent.items() if key not in ("v", "step")}
        records.write_json(target / "evaluation.json", header)
        records.write_lines(target / "samples.jsonl", _moved(source / "samples.jsonl", random))
        for path in source.glob("probes.json*"):
            shutil.copy(path, target / path.name)
        if fraction == 1 and seed == 0 and (source / "images").is_dir():
            shutil.copytree(source / "images", target / "images")


def _moved(samples: Path, random: np.random.Generator) -> Iterator[dict[str, Any]]:
    for row in records.read_lines(samples):
        for score in (score for score in row["scores"].values() if score.get("score") is not None):
            if score["score"] in (0.0, 1.0):
                score["score"] = 1.0 - score["score"] if random.random() < FLIPPED else score["score"]
            else:
                score["score"] = round(score["score"] + random.normal(0, MOVED), 6)
        yield row


def main() -> None:
    """Write the stand-in of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with jobs of SFT and SOAR, seed 0, on high_aesthetic")
    parser.add_argument("out", type=Path, help="a folder that is not there yet")
    arguments = parser.parse_args()
    print(f"{stand_in(arguments.run, arguments.out)}: {len(planned())} jobs")


if __name__ == "__main__":
    main()
