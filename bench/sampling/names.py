"""Names of solvers and remedies, as a sampler's record holds them. Nothing heavy is imported here."""

from __future__ import annotations

import math
from typing import Final

from bench.errors import BenchError, unknown

EULER: Final = "euler"
"""The reference, which every suite draws with."""

HEUN: Final = "heun"
DPM: Final = "dpm++"

SOLVERS: Final = (EULER, HEUN, DPM)

EPSILON: Final = "epsilon_scaling"
DIFFERENTIAL: Final = "differential_correction"

REMEDIES: Final = {EPSILON: (1, 1), DIFFERENTIAL: (1, 2)}
"""Name → the least and the most scales that it takes."""


AUTO: Final = "auto"
"""In place of a scale: it is chosen on validation prompts."""


def evaluations(solver: str, steps: int) -> int:
    """How many velocities a sample costs: solvers are compared at equal ones, and not at equal steps."""
    return 2 * steps - 1 if solver == HEUN else steps


def check_solver(name: str) -> None:
    """BenchError for a solver that is not known."""
    if name not in SOLVERS:
        raise unknown("solver", name, SOLVERS)


def read_remedy(text: str) -> tuple[str, tuple[float, ...]]:
    """Name and scales of a remedy that is written ``name=scale`` or ``name=scale:scale``. BenchError for others."""
    name, equals, values = text.partition("=")
    if name not in REMEDIES:
        raise unknown("remedy", name, REMEDIES)
    least, most = REMEDIES[name]
    try:
        scales = tuple(float(value) for value in values.split(":")) if equals else ()
    except ValueError:
        scales = ()
    if not least <= len(scales) <= most or not all(map(math.isfinite, scales)):
        form = "SCALE" if most == 1 else "LOW or LOW:HIGH"
        raise BenchError(f"the remedy {name} is written {name}={form} with numbers, not {text!r}")
    return name, scales


def is_auto(text: str) -> bool:
    """Whether a remedy's scale is to be chosen. BenchError for a remedy that is not known."""
    name, _, scale = text.partition("=")
    if name not in REMEDIES:
        raise unknown("remedy", name, REMEDIES)
    return scale == AUTO


def check_remedy(text: str, solver: str) -> None:
    """BenchError for a remedy that is not known or that the solver cannot have."""
    name, scales = read_remedy(text)
    if name == EPSILON and scales[0] <= 0:
        raise BenchError(f"epsilon scaling divides by a scale above 0, not by {scales[0]:g}")
    if name == DIFFERENTIAL and solver != EULER:
        raise BenchError(f"{name} changes where Euler steps lead, and {solver} takes none; choose {EULER}")
