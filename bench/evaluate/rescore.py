"""``bench score``: further scores of the images that a run keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import records, registry
from bench.errors import BenchError
from bench.evaluate.columns import check_facts, columns_of, recorded_suite
from bench.machine.locks import EXPERIMENT, hold_lock
from bench.machine.progress import Progress
from bench.records import atomic
from bench.records.reading import check_run
from bench.records.schema import ExperimentRecord

if TYPE_CHECKING:
    from bench.machine.engine import Engine


def score_run(run: Path, names: Sequence[str], progress: Progress) -> None:
    """Score the images that a run keeps: what its suite's metrics owe, and columns that it does not have yet.

    Args:
        run: a folder of ``runs/``; every evaluation in it is scored.
        names: metrics, each as ``name`` or ``name@prompt-set``; empty: those of the run.

    Raises:
        BenchError: one line.
    """
    from bench.machine.engine import Engine

    if not (run / "experiment.json").is_file():
        raise BenchError(f"{run} is no run (it has no experiment.json); give a folder of runs/")
    with hold_lock(run, EXPERIMENT, engine := Engine(), progress.say):
        atomic.sweep_below(run)
        _score_run(run, names, progress, engine)


def _score_run(run: Path, names: Sequence[str], progress: Progress, engine: Engine) -> None:
    from bench.evaluation.scoring import count_missing, score_suite

    path = run / "experiment.json"
    record = records.read_raw(ExperimentRecord, path)
    check_run(run)  # every record is of this version before the first is written again
    suite, known = recorded_suite(record, run)
    wanted = columns_of(suite, names, known)
    suite = suite.with_metrics(known | wanted)
    metrics = {name: registry.load("metrics", name)() for name in (wanted if names else known)}
    evaluations = sorted(run.glob("*/evaluations/[!.]*/samples.jsonl"))
    check_facts(suite, metrics)
    for column in record["suite"]["metrics"]:
        if column["name"] in metrics:
            _check_weights(metrics[column["name"]].describe(), column, evaluations, run)
    left = sum(count_missing(suite, metrics, lines.parent, again=True) for lines in evaluations)
    with progress.task(f"score {run.name}", max(left, 1)) as task:
        for lines in evaluations:
            row = lines.relative_to(run).parts[0]
            with hold_lock(run, row, engine, progress.say):  # a command that scores it writes the same file
                score_suite(suite, metrics, lines.parent, engine=engine, again=True, keep=metrics, tick=task.advance)
    for metric in metrics.values():
        metric.release()
    columns = {metric["name"]: metric for metric in record["suite"]["metrics"]}
    for name, prompts in suite.metrics():
        if name in metrics:
            column = prompts.column(metrics[name], suite.on_the_way)
            added = name not in known or columns[name].get("added")
            columns[name] = records.document(column.as_added() if added else column)
    record["suite"]["metrics"] = list(columns.values())
    records.write_json(path, record)
    without = [
        cell["error"]
        for lines in evaluations
        for row in records.read_lines(lines)
        for name, cell in row["scores"].items()
        if name in metrics and "error" in cell
    ]
    failures = f"; {len(without)} cells have no score, the first: {without[0]}" if without else ""
    progress.say(f"{run.name}: {left} cells tried in {len(evaluations)} evaluations{failures}")


def _check_weights(now: Mapping[str, Any], then: Mapping[str, Any], evaluations: Sequence[Path], run: Path) -> None:
    """BenchError if scores are kept of a metric that now computes with other weights. Failed cells may stand."""
    if then["version"] != now["version"] or then.get("weights") == now.get("weights"):
        return
    cells = (row["scores"].get(now["name"], {}) for path in evaluations for row in records.read_lines(path))
    if any("score" in cell and cell["version"] == now["version"] for cell in cells):
        raise BenchError(
            f"{run} holds scores of {now['name']} with other weights ({then.get('weights')}, and here "
            f"{now.get('weights')}): the scores would not compare"
        )
