"""How much compute a job may spend, in one of four currencies."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.errors import BenchError, shortened, unknown
from bench.machine.bounds import LARGEST_BUDGET

CURRENCIES = {
    "flops": "training FLOPs: forwards, backwards, rollouts, reward models, discarded samples",
    "updates": "optimizer updates (what papers call training steps, where an iteration takes several)",
    "steps": "iterations of the method",
    "device-seconds": "seconds of training on the device, evaluation excluded",
}

EXAMPLES = {"flops": "4e12", "updates": "100", "steps": "100", "device-seconds": "3600"}


@dataclass(frozen=True)
class Budget:
    """An amount in a currency, e.g. ``flops=2e13``, ``steps=5000`` or ``device-seconds=3600``."""

    currency: str
    amount: float

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``currency=amount``. Raises BenchError when either part makes no sense."""
        currency, separator, amount = text.partition("=")
        if currency not in CURRENCIES:
            raise unknown("budget currency", currency, CURRENCIES)
        try:
            value = float(amount)
        except ValueError:
            value = math.nan
        if not separator or not math.isfinite(value) or value <= 0:
            example = f"{currency}={EXAMPLES[currency]}"
            raise BenchError(f"budget {shortened(text, 80)!r} needs a positive amount, e.g. {example}")
        if currency in ("updates", "steps") and value < 1:
            raise BenchError(f"budget {shortened(text, 80)!r} is less than one of the {currency}")
        if value > LARGEST_BUDGET[currency]:
            raise BenchError(f"budget {shortened(text, 80)!r} is beyond {currency}={LARGEST_BUDGET[currency]:g}")
        return cls(currency, value)

    def __str__(self) -> str:
        short = f"{self.amount:g}"
        return f"{self.currency}={short if float(short) == self.amount else repr(self.amount)}"
