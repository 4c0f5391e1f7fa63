"""The doors of a rehearsed job. They say what memory is for, and let equal work count instead of happening again.

The micro-batches of a loop are alike. The first shows what one takes; the last, in which gradients are shared, what two
take. Between them forwards are not computed: a number with a gradient stands for their velocity, and the operators of
the first micro-batch are counted. Forwards without a graph and outside of one are alike too: of equal sizes, the first
is done, and the others are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.batches import Pairs, PreferencePairs, PromptBatch
from bench.job import Job
from bench.rehearsal.tape import ACTIVATIONS, AVERAGES, GRADIENTS, OPTIMIZER, TEXT, WEIGHTS, Counts, Tape

T = TypeVar("T")


class Enough(Exception):
    """As many backwards as were wanted have been seen."""


class RehearsedJob(Job):
    """A job whose doors keep the tape's books.

    Attributes:
        tape: what is written on.
        shown: micro-batches of a loop that are computed, beside the last one.
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
        self._left_out = self._coming = False
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
            if self._left_out:
                stands = torch.empty_like(latents, dtype=torch.float32)
                return stands + self._leaf if torch.is_grad_enabled() else stands
            if torch.is_grad_enabled():
                self.graphs = True
                with tape.of(ACTIVATIONS, "forward"):
                    return usual(latents, sigma, text)
            with tape.of(ACTIVATIONS, "forward without a graph"):
                if self.graphs:
                    return usual(latents, sigma, text)
                key = (*latents.shape, *text.prompt_embeds.shape, bare(), torch.is_tensor(sigma))
                if key in self._seen:  # the very same operators, on memory of the very same size
                    tape.counts.add(self._seen[key])
                    return torch.empty_like(latents, dtype=torch.float32)
                before = tape.counts.copy()
                out = usual(latents, sigma, text)
                self._seen[key] = tape.counts.since(before)
                return out

        policy.velocity = velocity  # type: ignore[method-assign]

    # -- data ------------------------------------------------------------------------------------------------------

    def pairs(self, count: int) -> Iterator[Pairs]:
        yield from self._counted(super().pairs(count))

    def preference_pairs(self, count: int) -> Iterator[PreferencePairs]:
        yield from self._counted(super().preference_pairs(count))

    def parts(self, batch: PromptBatch, rows: Tensor | None = None) -> Iterator[Tensor]:
        turns = super().parts(batch, rows)
        yield from self._counted(turns) if torch.is_grad_enabled() else turns

    def more(self, coming: bool = True) -> AbstractContextManager[None]:
        self._coming = coming  # said of each micro-batch just before its turn
        return super().more(coming)

    def _counted(self, turns: Iterator[T]) -> Iterator[T]:
        """These, of which some are left out and counted as the first."""
        first: Counts | None = None
        for number, turn in enumerate(turns):
            self._left_out = number >= self.shown and self._coming
            before = self.tape.counts.copy()
            yield turn
            if self._left_out and first is not None:
                self.tape.counts = before
                self.tape.counts.add(first)
            elif first is None:
                first = self.tape.counts.since(before)
            self._left_out = False

    # -- learning --------------------------------------------------------------------------------------------------

    def accumulate(self, loss: Tensor, items: float) -> None:
        mark = self.tape.mark()
        with self.tape.of(ACTIVATIONS, "backward"):
            super().accumulate(loss, items)
        self.graphs = False
        self.tape.name_since(mark, GRADIENTS)  # what outlives a backward
        if self.backwards is not None:
            self.backwards -= 1
            if self.backwards == 0:
                raise Enough

    def update(self) -> None:
        with self.tape.of(OPTIMIZER, "update"):
            super().update()
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
