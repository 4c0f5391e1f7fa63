"""Confirmation: the best trials of a row and its first one again on fresh seeds. The median over these seeds decides.

The best of many noisy trials is partly luck, so its own score says too much. AlgoPerf chooses its targets by the median
over repeated trainings of the best setting, so that no "lucky outlier" is taken, and scores a submission by the median
over repeated studies (mlcommons/algorithmic-efficiency @ 2c90454, ``docs/DOCUMENTATION.md``, "Defining target
performance" and "External tuning ruleset"). It repeats one setting 20 times. Here it is a few settings and three times:
three is the fewest of which a median leaves out the extremes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count, islice
from statistics import median

from bench.report.text import Grid
from bench.tune.trials import Trial

BEST = 2
"""Trials of each row that are run again beside the first one. Ours; more cost as much as further trials."""
REPEATS = 3
"""Fresh seeds of each."""


@dataclass(frozen=True)
class Confirmation:
    """A trial on fresh seeds: the objective by seed, None where it failed."""

    row: str
    number: int
    values: tuple[float | None, ...]

    @property
    def median(self) -> float | None:
        """The median, in which a failure is worse than any value. None where that is a failure itself."""
        middle = median(-math.inf if value is None else value for value in self.values)
        return middle if math.isfinite(middle) else None


def fresh_seeds(seed: int, reported: Iterable[int]) -> tuple[int, ...]:
    """The next seeds after that of the trials which the experiment does not report."""
    taken = {*reported}
    return tuple(islice((each for each in count(seed + 1) if each not in taken), REPEATS))


def candidates(trials: Sequence[Trial], best: int) -> list[Trial]:
    """Of one row's trials the first, and the ``best`` others, in order; none of those that failed.

    The first is the present setting. It is always among them, so that tuning is held against not tuning.
    """
    done = [trial for trial in trials if trial.scored.value is not None]
    others = sorted((t for t in done if t.number), key=lambda t: (-(t.scored.value or 0.0), t.number))[:best]
    return sorted([*(t for t in done if not t.number), *others], key=lambda t: t.number)


def winner(confirmations: Sequence[Confirmation]) -> Confirmation | None:
    """The best median of one row; of equal ones the earliest trial, and None if all failed."""
    done = [(c.median, -c.number, c) for c in confirmations if c.median is not None]
    return max(done, key=lambda entry: entry[:2])[2] if done else None


def confirmations_csv(confirmations: Sequence[Confirmation], seeds: Sequence[int]) -> str:
    """Every confirmation and seed in full precision; the objective is empty where it failed."""
    lines = [
        [c.row, str(c.number), str(seed), "" if value is None else repr(value)]
        for c in confirmations
        for seed, value in zip(seeds, c.values, strict=True)
    ]
    return Grid(["row", "trial", "seed", "objective"], lines).csv()


def confirmations_markdown(confirmations: Sequence[Confirmation], seeds: Sequence[int]) -> str:
    """A table of all rows, the trial with the best median of each in bold."""
    if not confirmations:
        return ""
    lines = []
    for c in confirmations:
        won = winner([other for other in confirmations if other.row == c.row])
        middle = _text(c.median)
        lines.append([c.row, str(c.number), *map(_text, c.values), f"**{middle}**" if won is c else middle])
    about = (
        f"The first trial of each row and its best others, again on {len(seeds)} seeds that no trial had. The median "
        "decides, a failure being worse than any value."
    )
    grid = Grid(["Row", "Trial", *(f"Seed {seed}" for seed in seeds), "Median"], lines)
    return f"\n## Confirmation\n\n{about}\n\n{grid.markdown()}"


def _text(value: float | None) -> str:
    return "failed" if value is None else f"{value:+.3f}"
