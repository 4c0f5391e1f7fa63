"""What a method declares that it must be given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """What a method must be given. The harness prepares just this, and the report prints it."""

    pairs: bool = False
    prompts: bool = False
    reward: bool = False
    differentiable_reward: bool = False
    preference_pairs: bool = False
