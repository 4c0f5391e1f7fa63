"""Noise levels that a sampler visits: lists of sigmas that are this project's own, under names that records hold.

A suite names its list (``Sampler.levels``). No release of diffusers can move a picture under an unchanged suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError, unknown

DIFFUSERS: Final = "diffusers-0.42"
"""The list of diffusers 0.42: what suites have unless they say otherwise."""

SHIFTED: Final = "shifted"
"""The list without diffusers' second shift of the lower end."""

TABLE: Final = 1000
"""Training timesteps of the SD3 family: the model is given the timestep ``1000 sigma``."""


def uniform_times(steps: int) -> NDArray[np.float64]:
    """Times before the shift from 1 down to ``1 / steps``, equally far apart: (steps,)."""
    return np.linspace(1.0, 1 / steps, steps)


def _shift(times: NDArray[np.floating], shift: float) -> Any:
    return shift * times / (1 + (shift - 1) * times)


def _diffusers(steps: int, shift: float) -> NDArray[np.float64]:
    """``FlowMatchEulerDiscreteScheduler(shift=shift).set_timesteps(steps)`` of diffusers 0.42, but for the last 0.

    Its table of 1000 levels is in float32 and shifted already. The list goes in equal steps from the table's largest
    level to its least, and is then shifted. So the lower end is shifted twice (huggingface/diffusers issue 13243).
    """
    highest, lowest = (float(level) for level in _shift(np.array([TABLE, 1], np.float32) / np.float32(TABLE), shift))
    times: NDArray[np.float64] = np.linspace(highest * TABLE, lowest * TABLE, steps) / TABLE
    return np.asarray(_shift(times, shift))


def _shifted(steps: int, shift: float) -> NDArray[np.float64]:
    return np.asarray(_shift(uniform_times(steps), shift))


GRIDS: Final[Mapping[str, Callable[[int, float], NDArray[np.float64]]]] = {DIFFUSERS: _diffusers, SHIFTED: _shifted}
"""Name → (steps, shift) → levels (steps,) without the last 0. A name's numbers never change: another list is new."""


def check(name: str) -> None:
    """BenchError for a list that is not known."""
    if name not in GRIDS:
        raise unknown("list of noise levels", name, GRIDS)


def sigmas(name: str, steps: int, shift: float) -> NDArray[np.float32]:
    """The noise levels of a sampler of ``steps`` steps, from 1 down to 0: (steps + 1,).

    Args:
        name: one of ``GRIDS``.
        steps: at least 1.
        shift: the timestep shift of the backbone (3 for SD3 and SD3.5).

    Raises:
        BenchError: an unknown name, or fewer than one step.
    """
    check(name)
    if steps < 1:
        raise BenchError(f"a sampler takes at least one step, and {steps} are asked for")
    return np.append(GRIDS[name](steps, shift), 0).astype(np.float32)


def sigmas_from(sigma: float, steps: int, shift: float) -> NDArray[np.float32]:
    """Levels from ``sigma`` down to 0 in equal steps of the time before the shift: (steps + 1,).

    From 1 it is the list ``shifted``.
    """
    times = np.linspace(sigma / (shift - (shift - 1) * sigma), 0, steps + 1)
    return np.asarray(_shift(times, shift)).astype(np.float32)


ELSEWHERE: Final[Mapping[str, Any]] = {
    "num_train_timesteps": TABLE,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
    "invert_sigmas": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
"""Settings of a scheduler that would make another list, and the values with which they do not."""


def check_scheduler(config: Mapping[str, Any], where: str) -> None:
    """BenchError for a scheduler whose own levels are none of ``GRIDS``: its pipeline would draw other pictures.

    Args:
        config: its settings.
        where: its file, for the message.
    """
    for key, value in ELSEWHERE.items():
        if (setting := config.get(key, value)) != value:
            raise BenchError(
                f"{where}: {key} is {setting!r}, and noise levels are known for {value!r} alone; set it to that value "
                "in a copy of the pipeline"
            )


def with_name(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record whose ``sampler`` names its levels, as those from before levels had names do not: they had one list."""
    sampler = record.get("sampler")
    return {**record, "sampler": {"levels": DIFFUSERS, **sampler}} if isinstance(sampler, Mapping) else record
