"""A training session: the job that a method sees, and what the harness holds beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.backbone.condition import TextCondition
from bench.backbone.loader import Backbone
from bench.errors import JobFailure
from bench.job import Job
from bench.machine.engine import Compute, Engine
from bench.method import PostTrainingMethod
from bench.metric import Metric
from bench.sampling.levels import DIFFUSERS
from bench.training.average import BudgetAverage
from bench.training.data import TrainingData
from bench.training.feed import Feed
from bench.training.learner import Learner
from bench.training.ledger import Ledger
from bench.training.model import TrainedModel
from bench.training.needs import Needs
from bench.training.reward import Reward


@dataclass(frozen=True)
class Session:
    """One method's training on one subset with one seed, and how its job is put together.

    Attributes:
        job: the doors; all that a method is given.
        ledger: what the job spends and logs.
        model: what the job trains.
    """

    job: Job
    engine: Engine
    compute: Compute
    ledger: Ledger
    model: TrainedModel
    feed: Feed
    scorer: Reward | None

    @staticmethod
    def of(
        *,
        backbone: Backbone,
        null: TextCondition,
        data: TrainingData,
        seed: int,
        reward: Metric | None = None,
        engine: Engine | None = None,
        compute: Compute | None = None,
        levels: str = DIFFUSERS,
    ) -> Session:
        """A session that has not begun; every door that ``data`` and ``reward`` allow is open.

        Args:
            null: the empty prompt's condition, one row.
            reward: the metric that scores pictures for a method that asks for it.
            engine, compute: default: one process on the CPU, with the default settings.
            levels: name of the list of noise levels that the policy samples with; the suite's.
        """
        engine, compute = engine or Engine(), compute or Compute()
        ledger = Ledger(engine)
        model = TrainedModel(backbone, null, engine, compute, ledger, levels)
        feed = Feed(data, seed, engine)
        scorer = Reward(reward, engine) if reward else None
        job = Job(backbone, model, ledger, feed, scorer, engine, compute, seed)
        return Session(job, engine, compute, ledger, model, feed, scorer)

    def grant(self, needs: Needs) -> None:
        """Open the doors that a method declared, and close the others."""
        self.feed.grant(needs)
        if self.scorer is not None:
            self.scorer.grant(needs)

    def position(self) -> dict[str, Any]:
        """The step and the rows read so far."""
        return {"step": self.ledger.step, "cursors": dict(self.feed.cursors)}

    def go_to(self, position: dict[str, Any]) -> None:
        """Go to a ``position``."""
        self.ledger.step, self.feed.cursors = position["step"], dict(position["cursors"])

    @property
    def _learner(self) -> Learner:
        if self.model.learner is None:
            raise JobFailure("the method's setup chose nothing to train")
        return self.model.learner

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed job needs, but for the method's own state. Every process must call it."""
        return {**self.position(), **self.ledger.state_dict(), **self._learner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``, made by any number of processes; called after the method's ``setup``."""
        self._learner.load_state_dict(state)
        self.ledger.load_state_dict(state)
        self.go_to(state)

    def close(self) -> None:
        """End the threads that read ahead and score."""
        self.feed.close()
        if self.scorer is not None:
            self.scorer.close()


def follow(method: PostTrainingMethod, job: Job, average: BudgetAverage | None, share: float) -> None:
    """Take what the method would evaluate into the average, if there is one, after a step that spent ``share``."""
    if average is not None:
        with method.evaluation_weights(job):
            average.follow(job.parameters, share)


@contextmanager
def shown(method: PostTrainingMethod, job: Job, average: BudgetAverage | None) -> Iterator[None]:
    """Context with the weights in place that a job is evaluated with and leaves: its average over the budget, where the
    experiment has one; else what the method evaluates."""
    with method.evaluation_weights(job) if average is None else job.swapped(average.values):
        yield
