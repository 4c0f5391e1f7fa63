"""Which settings of a method are varied, and how far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import BenchError, unknown
from bench.method import MethodConfig, PostTrainingMethod

Range = tuple[float, float]


@dataclass(frozen=True)
class Dimension:
    """One setting: its range, and the value it has before tuning, which lies in it."""

    key: str
    low: float
    high: float
    default: float

    @property
    def whole(self) -> bool:
        """Whether the setting is a whole number."""
        return isinstance(self.default, int)

    def rounded(self, value: float) -> float:
        """A proposed value with three significant digits (a whole number stays itself), within the range."""
        return value if self.whole else min(max(float(f"{value:.3g}"), self.low), self.high)


def read_ranges(texts: Sequence[str], rows: Sequence[str]) -> dict[str, dict[str, Range]]:
    """``NAME.KEY=LOW:HIGH`` settings by row and key.

    Raises:
        BenchError: one line for what is no such setting, or names a row that is not tuned.
    """
    ranges: dict[str, dict[str, Range]] = {}
    for text in texts:
        target, _, span = text.partition("=")
        row, _, key = target.rpartition(".")
        low, _, high = span.partition(":")
        try:
            bounds = float(low), float(high)
        except ValueError:
            bounds = (0.0, 0.0)
        if not (row and key and 0 <= bounds[0] < bounds[1] < float("inf")):
            raise BenchError(
                f"--space takes NAME.KEY=LOW:HIGH with 0 <= LOW < HIGH, e.g. NAME.lr=1e-5:1e-3, not {text!r}"
            )
        if row not in rows:
            raise unknown("row in --space", row, rows)
        if key in ranges.setdefault(row, {}):
            raise BenchError(f"--space names {row}.{key} twice; give it one range")
        ranges[row][key] = bounds
    return ranges


def _around(row: str, key: str, value: float, factors: Any) -> Range:
    """The range of factors of a value. BenchError where a method declares no two factors, or they leave no range."""
    match factors:
        case (int() | float() as low, int() | float() as high) if 0 <= low < high < float("inf"):
            pass
        case _:
            raise BenchError(
                f"{row} declares {factors!r} for {key}; `tunable` has a low and a high factor: (0.1, 10.0)"
            )
    if value == 0:
        raise BenchError(
            f"{row}.{key} is 0, so factors of it give no range; name one with --space {row}.{key}=LOW:HIGH"
        )
    return value * low, value * high


def space_of(
    row: str, method: type[PostTrainingMethod], config: MethodConfig, ranges: Mapping[str, Range]
) -> tuple[Dimension, ...]:
    """What is varied of a row: the method's ``tunable`` settings, as factors of what ``config`` has, and ``ranges``.

    Raises:
        BenchError: nothing to vary, or a setting that cannot be: unknown, not a number, or outside its range.
    """
    values = dict(config)
    factors = {key: factor for key, factor in method.tunable.items() if key in values and key not in ranges}
    dimensions = []
    for key in [*factors, *ranges]:
        if key not in values:
            raise unknown(f"configuration key of {row}", key, values)
        value = values[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BenchError(f"{row}.{key} is {value!r}: only numbers are tuned")
        low, high = ranges[key] if key in ranges else _around(row, key, value, factors[key])
        if isinstance(value, int):
            low, high = max(round(low), 1) if low else 0, round(high)
        if not low <= value <= high:
            raise BenchError(
                f"{row}.{key} is {value:g}, outside {low:g}:{high:g}; the first trial is the present value"
            )
        dimensions.append(Dimension(key, low, high, value))
    if not dimensions:
        raise BenchError(f"{row} declares nothing to tune; name a setting with --space {row}.KEY=LOW:HIGH")
    return tuple(dimensions)
