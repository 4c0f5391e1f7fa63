"""What is tried next: Optuna's tree-structured Parzen estimator, with a seed of its own for each row."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import Trial, TrialState

from bench.rng import derive_seed
from bench.tune.space import Dimension

RANDOM = 4
"""Trials before the search follows results: the present value and three random ones.

A constant, so that a command with more trials begins with those of one with fewer.
"""


class Search:
    """The trials of one row. The same seed and the same results give the same proposals.

    TPE: Bergstra et al. 2011 (Algorithms for Hyper-Parameter Optimization), as in Optuna. Ranges from above 0 are
    searched on a logarithmic scale.
    """

    def __init__(self, row: str, dimensions: Sequence[Dimension], seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(
            seed=derive_seed(seed, row, "tune") % 2**32, n_startup_trials=RANDOM, multivariate=len(dimensions) > 1
        )
        self._dimensions = tuple(dimensions)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._study.enqueue_trial({d.key: d.default for d in dimensions})
        self._trial: Trial | None = None

    def ask(self) -> dict[str, float]:
        """The next trial's settings; the first are the present ones."""
        trial = self._trial = self._study.ask()
        return {d.key: d.default if trial.number == 0 else d.rounded(_suggest(trial, d)) for d in self._dimensions}

    def tell(self, value: float | None) -> None:
        """The objective of what was asked last; None for a trial that failed, which counts as worse than any value."""
        assert self._trial is not None
        # A failed trial in Optuna's sense is forgotten; TPE ranks a pruned one below every other.
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        self._study.tell(self._trial, value, state)


def _suggest(trial: Trial, d: Dimension) -> float:
    if d.whole:
        return trial.suggest_int(d.key, int(d.low), int(d.high), log=d.low > 0)
    return trial.suggest_float(d.key, d.low, d.high, log=d.low > 0)
