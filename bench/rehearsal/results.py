"""What a rehearsal found, as plain values that are written as JSON and read back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig
    from bench.machine.engine import Sharding

PARTS = ("setup", "first step", "step", "evaluation", "checkpoint", "resume")
"""What is rehearsed of a job, in its order. ``step`` is the second one: the optimizer has its states then."""


@dataclass(frozen=True)
class Place:
    """What happens at a place of the code, and how often in this part."""

    what: str
    where: str
    count: int


@dataclass(frozen=True)
class Part:
    """A part of a job: one of ``PARTS``.

    Attributes:
        name: of the part.
        peak: bytes on the device at most.
        at, where: the operator that needed them, and its place in the code.
        kinds: bytes at the peak by what they are for.
        phases: the peak of each phase of the part, by kind.
        left: bytes that stay after it.
        operators: that launch a kernel.
        waits: of the host for the device.
        host_bytes: copied from the host.
        waiting, crossing, devices, dtypes: places where the host waits, where it copies to the device, and where
            operands differ in device or dtype.
    """

    name: str
    peak: int
    at: str
    where: str
    kinds: dict[str, int]
    phases: dict[str, dict[str, int]]
    left: int
    operators: int
    waits: int
    host_bytes: int
    waiting: tuple[Place, ...] = ()
    crossing: tuple[Place, ...] = ()
    devices: tuple[Place, ...] = ()
    dtypes: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Setting:
    """How a job is computed: what memory hangs on."""

    processes: int = 1
    sharding: Sharding = "ddp"
    micro_batch: int | None = None
    gradient_checkpointing: bool = False
    adam_8bit: bool = False


def setting_of(config: ExperimentConfig, processes: int) -> Setting:
    """How an experiment's jobs are computed by so many processes. ``stages_of`` gives each row its micro-batch."""
    rows = config.micro_batch if isinstance(config.micro_batch, int) else None
    return Setting(processes, config.sharding, rows, config.gradient_checkpointing, config.adam_8bit)


@dataclass(frozen=True)
class Rehearsal:
    """One stage of a row under one setting.

    Attributes:
        row, stage: of the experiment; the stage is the row itself, but for a pipeline.
        parameters, trained: how many.
        reward: the metric whose models score, or why a stand-in gives the scores; empty: nothing is scored.
        short: whether only the forwards and backwards of a step were rehearsed.
        problem: why it ended early, with the place in the code; empty: it did not.
        seconds: that the rehearsal took.
    """

    row: str
    stage: str
    setting: Setting
    parameters: int = 0
    trained: int = 0
    parts: tuple[Part, ...] = ()
    reward: str = ""
    short: bool = False
    problem: str = ""
    seconds: float = 0.0

    def part(self, name: str) -> Part | None:
        """The part of this name, if it was come to."""
        return next((part for part in self.parts if part.name == name), None)

    @property
    def sharding(self) -> Sharding:
        """What is done with what trains: an adapter, and what one process trains, is held whole."""
        spread = self.setting.processes > 1 and self.trained == self.parameters
        return self.setting.sharding if spread else "ddp"

    @property
    def peak(self) -> int:
        """Bytes on one device at most, in all parts."""
        return max((part.peak for part in self.parts), default=0)


def to_json(rehearsal: Rehearsal) -> dict[str, Any]:
    """As plain values."""
    return asdict(rehearsal)


def from_json(values: dict[str, Any]) -> Rehearsal:
    """The reverse of ``to_json``."""
    parts = []
    for part in values["parts"]:
        places = {name: tuple(Place(**each) for each in part[name]) for name in _PLACES}
        parts.append(Part(**{**part, **places}))
    return Rehearsal(**{**values, "setting": Setting(**values["setting"]), "parts": tuple(parts)})


_PLACES = ("waiting", "crossing", "devices", "dtypes")
