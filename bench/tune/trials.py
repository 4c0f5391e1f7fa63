"""Trials as people read them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.experiment.tuned import Tuned
from bench.records import BASE
from bench.report.text import cell, listed
from bench.tune.objective import Scored


@dataclass(frozen=True)
class Trial:
    """One trial of a row: its number from 0, its settings, its jobs, and how it came out."""

    row: str
    number: int
    settings: Mapping[str, float]
    jobs: tuple[str, ...]
    scored: Scored


def best(trials: Sequence[Trial]) -> Trial | None:
    """The best of one row's trials; of equal ones the earliest, and None if all failed."""
    done = [(trial.scored.value, -trial.number, trial) for trial in trials if trial.scored.value is not None]
    return max(done)[2] if done else None


def trials_csv(trials: Sequence[Trial]) -> str:
    """The base and every trial at full precision."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.settings))
    labels = _labels(trials)
    text = io.StringIO()
    lines: list[Sequence[object]] = []
    lines.append(["row", "trial", *keys, "objective", *labels, "failed"])
    lines.append([BASE, "", *[""] * len(keys), "", *(_base(trials).get(label, "") for label in labels), ""])
    for trial in trials:
        value, metrics = trial.scored.value, trial.scored.metrics
        settings = [trial.settings.get(key, "") for key in keys]
        means = [metrics.get(label, "") for label in labels]
        own = "" if value is None else value
        lines.append([trial.row, trial.number, *settings, own, *means, trial.scored.reason])
    csv.writer(text, lineterminator="\n").writerows(map(cell, line) for line in lines)
    return text.getvalue()


def trials_markdown(trials: Sequence[Trial], tuned: Tuned) -> str:
    """A table for each row, its best trial in bold."""
    labels = _labels(trials)
    lines = [
        "# Trials",
        "",
        f"{tuned.trials} trials of each row on {listed(tuned.subsets)} of {tuned.corpus}, with {tuned.backbone}, "
        f"{tuned.budget} and seed {tuned.seed} for each; scored once, at the end, on {tuned.suite}.",
        "",
        f"Objective: {tuned.objective}, as improvement over the base in standard deviations of the base's images.",
    ]
    for row in dict.fromkeys(trial.row for trial in trials):
        own = [trial for trial in trials if trial.row == row]
        won, keys = best(own), list(own[0].settings)
        head = ["Trial", *keys, "Objective", *labels]
        lines += ["", f"## {row}", "", _line(head), _line(["---"] * len(head))]
        lines.append(_line([BASE, *["–"] * (len(keys) + 1), *_means(_base(trials), labels)]))
        lines += [_line(_cells(trial, keys, labels, bold=trial is won)) for trial in own]
    return "\n".join(lines) + "\n"


def _cells(trial: Trial, keys: Sequence[str], labels: Sequence[str], *, bold: bool) -> Iterator[str]:
    mark, scored = "**" if bold else "", trial.scored
    yield f"{trial.number}, as it was" if trial.number == 0 else str(trial.number)
    yield from (f"{mark}{trial.settings[key]:.4g}{mark}" for key in keys)
    yield f"failed: {scored.reason}" if scored.value is None else f"{mark}{scored.value:+.3f}{mark}"
    yield from _means(scored.metrics, labels)


def _means(metrics: Mapping[str, float], labels: Sequence[str]) -> Iterator[str]:
    yield from (f"{metrics[label]:.4g}" if label in metrics else "–" for label in labels)


def _base(trials: Sequence[Trial]) -> Mapping[str, float]:
    """Means of the base, from any trial with scores."""
    return next((trial.scored.base for trial in trials if trial.scored.base), {})


def _labels(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(label for trial in trials for label in trial.scored.metrics))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
