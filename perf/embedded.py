"""Speed and size of the embedded default, measured. ``python perf/embedded.py [--run] [--json FILE]``.

Without ``--run`` it takes a minute; with it the whole default command is timed in a fresh folder. Every figure names
the target it is held against. Nothing here is a test: a shared machine's clock is no promise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Figure:
    """One measured number and the target it is held against."""

    what: str
    value: float
    unit: str
    target: str


def clock(function: Callable[[], object], repeats: int) -> float:
    """Median seconds of ``repeats`` calls after one that is not counted."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def help_time() -> Figure:
    """Whole-process time of ``bench --help``."""
    command = [str(Path(sys.executable).parent / "bench"), "--help"]
    seconds = clock(lambda: subprocess.run(command, check=True, capture_output=True), 7)
    return Figure("bench --help", seconds, "s", "<= 0.3")


def meter_cost() -> Figure:
    """Share of a training step that metering and recording take: the step's own charges and lines, timed alone."""
    from bench import registry
    from bench.backbone import loader
    from bench.experiment.config import method_config
    from bench.experiment.session import Session
    from bench.records import Log
    from bench.rng import torch_generator
    from bench.suite import Prompt
    from bench.training.data import TrainingData

    backbone = loader.find("tiny-sd3")
    text = backbone.encode_prompts(["a red circle"])
    import torch

    latents = torch.randn(64, *backbone.latent_shape, generator=torch_generator("perf"))
    shapes, first = torch.tensor([backbone.latent_shape]).expand(64, 3), torch.zeros(64, dtype=torch.long)
    data = TrainingData(latents, shapes, text, (Prompt("0", "a red circle"),), first)
    method_class = registry.load("methods", "sft")
    method = method_class(method_config(method_class, "embedded", {}))
    session = Session.of(backbone=backbone, null=backbone.encode_prompts([""]), data=data, seed=0)
    job, ledger = session.job, session.ledger
    method.setup(job)
    step = clock(lambda: method.step(job), 9)
    with tempfile.TemporaryDirectory() as folder:
        logs = [Log(Path(folder) / f"{name}.jsonl") for name in ("train", "meter", "clock")]

        def record() -> None:
            for count in ("forwards", "reference_forwards", "flops", "backwards", "flops"):
                ledger.charge(count, 32)
            for log in logs:
                log.append({"step": ledger.step, **ledger.meter.counts()})

        metering = clock(record, 99)
    return Figure("metering and recording, share of an SFT step", 100 * metering / step, "%", "<= 2")


def report_time(run: Path) -> Figure:
    """Time to draw a whole report from records."""
    from bench.report import render_report

    with tempfile.TemporaryDirectory() as folder:
        seconds = clock(lambda: render_report([run], Path(folder)), 3)
    return Figure("drawing the report", seconds, "s", "<= 15")


def default_run() -> list[Figure]:
    """The default command in a fresh folder: wall time, peak memory of its dearest job, size of what it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).parent / "bench"), "run"]
        command += ["--methods", "sft,soar,flow_grpo", "--subset", "high_aesthetic", "--quiet"]
        start = time.perf_counter()
        subprocess.run(command, check=True, cwd=folder)
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        run = Path(folder) / "runs" / "high_aesthetic"
        report = report_time(run)
        lines = [json.loads(line) for path in run.glob("*/clock.jsonl") for line in path.read_text().splitlines()]
        # Each job starts a new peak, so the system's figure for the whole process would be the last job's.
        memory = max(line["peak_memory"] for line in lines) / 2**30
    return [
        Figure("bench run, three methods", seconds / 60, "min", "<= 10"),
        Figure("bench run, peak memory of a job", memory, "GiB", "<= 3"),
        Figure("bench run, disk", size / 2**30, "GiB", "<= 3"),
        report,
    ]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="store_true", help="also time the whole default run")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    figures = [help_time(), meter_cost()] + (default_run() if arguments.run else [])
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
    for figure in figures:
        print(f"{figure.what:<48} {figure.value:8.2f} {figure.unit:<4} target {figure.target}")
    if arguments.json:
        result = {"machine": machine, "figures": [asdict(figure) for figure in figures]}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
