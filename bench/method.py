"""The seam: what a post-training method is to the harness."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from bench.machine.bounds import LARGEST_COUNT
from bench.training.needs import Needs

if TYPE_CHECKING:
    from bench.job import Job

__all__ = ["AdamWConfig", "MethodConfig", "Needs", "PostTrainingMethod", "Traits"]


class MethodConfig(BaseModel):
    """Base of every method's configuration: typed, frozen, closed to unknown keys, and with finite, bounded numbers.

    A number is neither infinite nor NaN. A whole number without an upper bound of its own (``le`` or ``lt``) is at most
    ``LARGEST_COUNT``, so that a mistyped batch is refused instead of filling the memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _counts_are_bounded(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        if any(getattr(rule, bound, None) is not None for rule in field.metadata for bound in ("le", "lt")):
            return value
        most = max(LARGEST_COUNT, abs(field.default) if isinstance(field.default, int) else 0)
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, int) and abs(part) > most:
                raise PydanticCustomError("count", "a whole number is at most {most} here", {"most": most})
        return value


Beta = Annotated[float, Field(ge=0, lt=1)]
"""Decay of one of AdamW's averages, as torch takes it."""


class AdamWConfig(MethodConfig):
    """Optimizer settings that most methods share. Defaults are the released SOAR command's for SD3.5-Medium."""

    lr: float = Field(2e-5, gt=0, description="AdamW, constant; released command")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="AdamW's defaults, unchanged in the released command")
    weight_decay: float = Field(1e-2, ge=0, description="released command")
    max_grad_norm: float = Field(1.0, gt=0, description="released command")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="of the average of the weights, which is what is evaluated; 0: no average"
    )
    ema_every: int = Field(1, gt=0, description="updates between EMA steps")
    ema_warmup: bool = Field(
        True, description="after n updates the EMA's decay is min(ema_decay, (1 + n) / (10 + n)); off: ema_decay"
    )

    def adamw(self) -> dict[str, Any]:
        """Arguments for ``job.train_full`` and ``job.train_lora``."""
        return {name: getattr(self, name) for name in AdamWConfig.model_fields}


@dataclass(frozen=True)
class Traits:
    """A method's row in the paper's Table 1: what it declares. Cost is not declared, it is measured."""

    training_signal: str
    on_policy: str
    signal_density: str
    credit_assignment: str
    reward_hacking: str
    resolves_model_bias: str
    trains: str
    paper: str


class PostTrainingMethod(ABC):
    """One post-training paradigm.

    The unit is an *iteration*, not a loss: SFT does one update in it, Flow-GRPO samples, scores and updates several
    times. ``job`` is the only door to data, models, rewards and randomness, and every door is metered.
    """

    Config: ClassVar[type[MethodConfig]]
    embedded: ClassVar[Mapping[str, Any]] = {}
    """Overrides of the defaults (which are the paper's, for SD3.5-M) that suit the embedded backbone."""
    tunable: ClassVar[Mapping[str, tuple[float, float]]] = {"lr": (0.1, 10.0)}
    """What `bench tune` varies: a positive setting → the least and the largest factor of its default."""
    needs: ClassVar[Needs]
    traits: ClassVar[Traits]
    trained_probes: ClassVar[tuple[str, ...]] = ()
    """Probes whose measure is in its loss: a report marks them †, as it marks a metric that is the reward."""

    def __init__(self, config: MethodConfig) -> None:
        self.config: Any = config

    @classmethod
    def needs_of(cls, config: Any) -> Needs:
        """What the method needs when configured like this. Default: ``needs``, whatever the configuration."""
        return cls.needs

    @abstractmethod
    def setup(self, job: Job) -> None:
        """Choose what trains (``job.train_full`` or ``job.train_lora``) and make extra copies."""

    @abstractmethod
    def step(self, job: Job) -> None:
        """One iteration: forwards, backwards and updates through ``job``. Scalars are logged with ``job.log``."""

    def evaluation_weights(self, job: Job) -> AbstractContextManager[None]:
        """Context in which the weights to be evaluated are in place. Default: the EMA if there is one."""
        return job.averaged_weights()

    def state_dict(self) -> dict[str, Any]:
        """What must survive a resume beyond weights, optimizer and meter. Tensors and plain values only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - optional, unlike setup and step
        """Restore ``state_dict``; called after ``setup``."""
