"""The doors of a rehearsed job. They say what memory is for, and let equal work count instead of happening again.

A forward and its backward, up to ``accumulate``, are a turn: of a micro-batch, of a piece of one, of a level of noise.
Turns at the same place of the code and of the same size are alike. The first after an update shows what one takes. The
last, in which gradients are shared between processes, shows what two take. Between them the model is not computed: a
number with a gradient stands for its velocity, and the operators of the first turn are counted. Forwards without a
graph and outside of one are alike too: of equal sizes, the first is done. The others are counted, and so is the memory
that the first took for a moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.job import Job
from bench.rehearsal.tape import ACTIVATIONS, AVERAGES, GRADIENTS, OPTIMIZER, TEXT, WEIGHTS, Counts, Tape, where


class Enough(Exception):
    """As many backwards as were wanted have been seen."""


class RehearsedJob(Job):
    """A job whose doors keep the tape's books.

    Attributes:
        tape: what is written on.
        shown: turns that are computed of those alike, beside the last one.
        backwards: after which a step ends with ``Enough``; None: it does not.
        graphs: whether a graph may be alive.
    """

    tape: Tape
    shown: int
    backwards: int | None
    graphs: bool

    def begin(self, tape: Tape) -> None:
        """Open the books."""
        self.tape, self.graphs = tape, False
        self.show(1)
        self._seen: dict[Any, Counts] = {}
        self._risen: dict[Any, int] = {}  # bytes that a forward without a graph takes for a moment
        self._turn: Any = None  # which one it is; None: it has not begun
        self._left_out = self._coming = False
        self._done: Counter[Any] = Counter()  # turns since the last update
        self._backward: dict[Any, Counts] = {}
        self._leaf = torch.zeros((), device=self.device, requires_grad=True)

    def show(self, shown: int, backwards: int | None = None) -> None:
        """Say how much of a step is wanted."""
        self.shown, self.backwards = shown, backwards

    # -- what trains -------------------------------------------------------------------------------------------------

    def train_full(self, **optimizer: Any) -> None:
        super().train_full(**optimizer)
        self._began()

    def train_lora(self, *, rank: int, alpha: float, target_modules: Sequence[str], **optimizer: Any) -> None:
        with self.tape.of(WEIGHTS):
            super().train_lora(rank=rank, alpha=alpha, target_modules=target_modules, **optimizer)
        self._began()

    def _began(self) -> None:
        transformer = self.policy.transformer
        self.tape.name([*transformer.parameters(), *transformer.buffers()], WEIGHTS)
        self.name_states()
        self.watch_policy()

    def watch_policy(self) -> None:
        """Forwards of the present policy are seen; a stage has another."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        policy, tape = self.policy, self.tape
        usual = policy.velocity
        layers = [part for part in policy.transformer.modules() if isinstance(part, BaseTunerLayer)]

        def bare() -> bool:
            return bool(layers) and layers[0].disable_adapters

        def velocity(latents: Tensor, sigma: Tensor | float, text: TextCondition) -> Tensor:
            key: tuple[Any, ...] = (*latents.shape, *text.prompt_embeds.shape, bare(), torch.is_tensor(sigma))
            if torch.is_grad_enabled():
                key = (*key, where(), self._coming)
                if self._turn is None:
                    self._turn, self._left_out = key, self._coming and self._done[key] >= self.shown
                self._left_out = self._left_out and key in self._seen
                before = tape.counts.copy()
                if self._left_out:
                    stands = torch.empty_like(latents, dtype=torch.float32) + self._leaf
                    tape.counts = before
                    tape.counts.add(self._seen[key])
                    return stands
                self.graphs = True
                with tape.of(ACTIVATIONS, "forward"):
                    out = usual(latents, sigma, text)
                self._seen[key] = tape.counts.since(before)
                return out
            with tape.of(ACTIVATIONS, "forward without a graph"):
                if self.graphs:
                    return usual(latents, sigma, text)
                if key in self._risen:  # the same operators, on memory of the same size
                    tape.counts.add(self._seen[key])
                    tape.rise(self._risen[key])
                    return torch.empty_like(latents, dtype=torch.float32)
                before, moment = tape.counts.copy(), tape.moment()
                out = usual(latents, sigma, text)
                self._seen[key], self._risen[key] = tape.counts.since(before), tape.risen(moment)
                return out

        policy.velocity = velocity  # type: ignore[method-assign]

    # -- learning --------------------------------------------------------------------------------------------------

    @contextmanager
    def more(self, coming: bool = True) -> Iterator[None]:
        before, self._coming = self._coming, self._coming or coming
        try:
            with super().more(coming):
                yield
        finally:
            self._coming = before

    def accumulate(self, loss: Tensor, items: float) -> None:
        mark, before, lacking = self.tape.mark(), self.tape.counts.copy(), self._lacking()
        with self.tape.of(ACTIVATIONS, "backward"):
            super().accumulate(loss, items)
        self.graphs = False
        self.tape.name_since(mark, GRADIENTS)  # what outlives a backward
        if self._left_out:
            self.tape.counts = before
            self.tape.counts.add(self._backward[self._turn])
            self._leaf.grad = None
        else:
            self._done[self._turn] += 1
            counts = self._backward[self._turn] = self.tape.counts.since(before)
            # The first gradient of a parameter is kept as it is, and those of the turns that follow are added to it.
            counts.operators["add_"] += lacking - self._lacking()
        self._turn, self._left_out = None, False
        if self.backwards is not None:
            self.backwards -= 1
            if self.backwards == 0:
                raise Enough

    def _lacking(self) -> int:
        """Parameters that have no gradient."""
        return sum(parameter.grad is None for parameter in self.parameters)

    def update(self) -> None:
        with self.tape.of(OPTIMIZER, "update"):
            super().update()
        self._done.clear()
        self.name_states()

    def name_states(self) -> None:
        """Say what the optimizer's states and the averages are."""
        learner = self._model.learner
        assert learner is not None
        self.tape.name(list(learner.optimizer.state.values()), OPTIMIZER)
        self.tape.name(learner.ema or [], AVERAGES)


def name_text(tape: Tape) -> None:
    """Conditions that go to the device are text."""
    conditions: Any = TextCondition
    usual = conditions.to

    def to(self: TextCondition, *arguments: Any, **options: Any) -> Any:
        with tape.of(TEXT):
            return usual(self, *arguments, **options)

    conditions.to = to
