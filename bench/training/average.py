"""An average of the weights that forgets by the budget: methods of few and of many updates are averaged alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bench import flow
from bench.machine.engine import spread


class BudgetAverage:
    """An exponential moving average of what trains.

    A step that spends the share s of the budget keeps ``0.5 ** (s / half_life)`` of it. It is the harness's, and the
    same for every row of an experiment. A method's own average stands beside it.

    Args:
        parameters: what trains, as it is before the first step.
        half_life: share of the budget after which a weight's part in the average is a half, above 0.

    Attributes:
        values: the average, like the parameters.
    """

    def __init__(self, parameters: Sequence[Tensor], half_life: float) -> None:
        self._half_life = half_life
        self.values = [p.detach().clone() for p in parameters]

    def follow(self, parameters: Sequence[Tensor], share: float) -> None:
        """Take in the weights after a step that spent ``share`` of the budget."""
        flow.ema_update(self.values, parameters, 0.5 ** (share / self._half_life))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed job needs."""
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``, made by any number of processes."""
        self.values = spread(state["values"], self.values)
