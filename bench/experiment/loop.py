"""Runs one job: train within the budget, evaluate at fixed fractions, checkpoint, resume."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from bench import records
from bench.errors import BenchError, JobFailure
from bench.evaluation import Evaluator
from bench.evaluation.drawing import clear_others
from bench.experiment.recorded import step_lines
from bench.experiment.session import Session, follow, shown
from bench.machine.engine import digest_of, spread, whole
from bench.machine.memory import peak_memory, release_memory, reset_peak_memory
from bench.method import PostTrainingMethod
from bench.probes.reader import ProbeReader
from bench.records import atomic, saved
from bench.records.schema import EvaluationRecord
from bench.training.average import BudgetAverage
from bench.training.budget import Budget
from bench.training.meter import Meter

CHECKPOINT_SECONDS = 20.0
CHECKPOINT_SHARE = 20.0
"""Time between checkpoints is at least this many times what steps wait for one, so that it costs 5 % at most."""


IDLE_STEPS = 100
"""A job that spends nothing in so many steps would never end: the method no longer does what its budget counts."""

BARREN_STEPS, BARREN_SHARE = 10, 0.1
"""So many steps without an update, at such a share of the budget, end a job: the rest would be wasted."""


OVERSPENT = 0.05
"""Share of the budget that a last step may cost beyond it, unless it costs no more than twice the dearest before it.
Whether there is a next step is decided by that one, so a step may overshoot where costs vary; the report flags it."""


ROUNDED = 1e-6
"""Shares of a budget nearer to each other are one: they are recorded to six digits."""


AGAIN = "delete it to start the job again"
"""Advice for a checkpoint that cannot be used."""


class OutOfMemory(Exception):
    """The device is full; the message says which options need less memory. The other processes cannot know."""


@dataclass
class Stand:
    """Where a job stands, beyond what session and method keep: all that a resume needs to go on alike.

    Attributes:
        stage: of the row's methods, from 0.
        begun: where the stage found the job, so that its setup draws in a resume what it drew then.
        evaluated: fractions of the budget that have been evaluated.
        largest_step: what the stage's dearest step has cost, in the budget's currency.
        taken: steps of the stage.
        updates_before: updates of the stages before.
        idle: steps in a row that spent nothing.
    """

    stage: int = 0
    begun: dict[str, Any] = field(default_factory=dict)
    evaluated: int = 0
    largest_step: float = 0.0
    taken: int = 0
    updates_before: int = 0
    idle: int = 0

    @staticmethod
    def of(state: dict[str, Any]) -> Stand:
        """As a checkpoint holds it; one of an earlier release may lack what was added since."""
        return Stand(**{f.name: state[f.name] for f in fields(Stand) if f.name in state})


@dataclass
class JobRun:
    """One job and its folder.

    Attributes:
        half_life: of the average of the weights that is evaluated, as a share of the budget (``BudgetAverage``); 0:
            what the method evaluates.
        probes: what reads measures of exposure bias at every evaluation.
        configuration: what its evaluations name, ``records.configuration``.
        then: stages after the first: a method, and the share of the budget at which it takes over. It starts from the
            weights that the stage before it would be evaluated with.
        fractions: shares of the budget at which the job is evaluated, the last one 1.0.
        progress: called with the share of the budget spent and the latest scalars.
        tick: called with images drawn in evaluations.
        track: called with each step and its scalars, for experiment trackers.
    """

    folder: Path
    method: PostTrainingMethod
    session: Session
    budget: Budget
    fractions: tuple[float, ...]
    evaluator: Evaluator
    half_life: float = 0.0
    probes: ProbeReader | None = None
    configuration: str | None = None
    then: tuple[tuple[PostTrainingMethod, float], ...] = ()
    progress: Callable[[float, dict[str, float]], None] = lambda share, scalars: None
    tick: Callable[[int], None] = lambda images: None
    track: Callable[[int, dict[str, float]], None] = lambda step, scalars: None
    stand: Stand = field(default_factory=Stand, init=False)
    average: BudgetAverage | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Open the logs; nothing is written yet."""
        main = self.session.engine.is_main
        self._train_log = records.Log(self.folder / "train.jsonl", write=main)
        self._meter_log = records.Log(self.folder / "meter.jsonl", write=main)
        self._clock_log = records.Log(self.folder / "clock.jsonl", write=main)
        self._writer = saved.Writer(self.folder / "checkpoint.pt")

    @property
    def _meter(self) -> Meter:
        return self.session.ledger.meter

    @property
    def _spent(self) -> float:
        """In the budget's currency."""
        return self._meter.spent(self.budget.currency)

    def run(self) -> None:
        """Train to the end of the budget. Raises JobFailure with the reason if the method breaks a promise."""
        try:
            self._run()
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(_out_of_memory(self.session, begun=(self.folder / "checkpoint.pt").exists())) from error
        finally:
            try:
                self._writer.close()
            finally:
                self.session.close()

    def _run(self) -> None:
        reset_peak_memory()
        self._resume()
        last, every = time.monotonic(), CHECKPOINT_SECONDS
        with _stop_between_steps() as stopped:
            while self._goes_on():
                self._step()
                evaluated = self._evaluate_due()
                due, stop = self._agree(time.monotonic() - last > every, stopped())
                if evaluated or due or stop:
                    start = time.monotonic()
                    self.save()
                    last = time.monotonic()
                    every = max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * (last - start))
                if stop:
                    raise KeyboardInterrupt
        self._evaluate(self.fractions[-1])
        self.save()
        self._export()

    # -- stages ----------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        """Let the present stage's method choose what trains, with the doors that it declared."""
        session, before = self.session, self.stand
        begun = session.position()
        session.grant(type(self.method).needs_of(self.method.config))
        self.method.setup(session.job)
        if not session.job.parameters:
            raise JobFailure("the method's setup chose nothing to train")
        self.stand = Stand(before.stage, begun, before.evaluated, updates_before=self._meter.updates)
        self.average = BudgetAverage(session.job.parameters, self.half_life) if self.half_life else None

    @property
    def _end(self) -> float:
        """Share of the budget at which the present stage ends."""
        return self.then[self.stand.stage][1] if self.stand.stage < len(self.then) else 1.0

    @property
    def _planned(self) -> int | None:
        """Place in ``fractions`` of the evaluation that the present stage's end brings, if it brings one."""
        return next((i for i, fraction in enumerate(self.fractions) if abs(fraction - self._end) < ROUNDED), None)

    def _goes_on(self) -> bool:
        """True if another step is to be taken, by this stage or by the next one."""
        while not self._affords_another():
            if self._meter.updates == self.stand.updates_before:
                taken = self.stand.taken
                raise JobFailure(f"the method never called job.update() in its {taken} steps: it learned nothing")
            if self.stand.stage == len(self.then):
                return False
            self._next_stage()
        return True

    def _next_stage(self) -> None:
        planned = self._planned
        if planned is not None and planned >= self.stand.evaluated:
            self._evaluate(self.fractions[planned])
            self.stand.evaluated = planned + 1
        following = self.stand.stage + 1
        with self._shown():
            self.session.model.save(self._weights_of(following), merge=True)
        self._enter(following)
        self.save()

    def _weights_of(self, stage: int) -> Path:
        """Where the weights lie that a later stage starts from."""
        return self.folder / "stages" / str(stage)

    def _enter(self, stage: int) -> None:
        self.stand.stage, self.method = stage, self.then[stage - 1][0]
        self.session.model.restart(self._weights_of(stage))
        release_memory()  # the earlier stage's model
        self._set_up()

    def _agree(self, due: bool, stop: bool) -> tuple[bool, bool]:
        """Whether to save and whether to stop, for all processes: when one has heard a signal, all stop."""
        engine = self.session.engine
        flags = engine.sum(torch.tensor([due and engine.is_main, stop], dtype=torch.int64))
        return bool(flags[0]), bool(flags[1])

    # -- training --------------------------------------------------------------------------------------------------

    def _affords_another(self) -> bool:
        """True unless the next step would overshoot; a step is taken to cost as much as the stage's dearest so far."""
        return self._spent + self.stand.largest_step <= self._end * self.budget.amount * (1 + 1e-9)

    def _step(self) -> None:
        ledger, stand, before, start = self.session.ledger, self.stand, self._spent, time.monotonic()
        self.method.step(self.session.job)
        self.session.engine.settle()
        scalars = ledger.finish_step(time.monotonic() - start, peak_memory())
        stand.taken += 1
        spent = self._spent
        follow(self.method, self.session.job, self.average, (spent - before) / self.budget.amount)
        stand.idle = stand.idle + 1 if spent == before else 0
        if stand.idle == IDLE_STEPS:
            raise JobFailure(
                f"{IDLE_STEPS} steps in a row spent none of the budget {self.budget}; the method has stopped learning "
                "(in policy gradients: rewards that no longer differ within a prompt)"
            )
        dearest, stand.largest_step = stand.largest_step, max(stand.largest_step, spent - before)
        taken, most = stand.taken, stand.taken * stand.largest_step
        barren = taken == IDLE_STEPS or (taken >= BARREN_STEPS and most >= BARREN_SHARE * self.budget.amount)
        if barren and self._meter.updates == stand.updates_before:
            raise JobFailure(f"the method did not call job.update() in its first {taken} steps: it learns nothing")
        self._check_spending(spent, spent - before, dearest)
        for name, value in scalars.items():
            if not math.isfinite(value):
                raise JobFailure(f"the method logged {name} = {value} at step {ledger.step}")
        self.track(ledger.step, scalars)
        logs = self._train_log, self._meter_log, self._clock_log
        for log, line in zip(logs, step_lines(ledger.step, scalars, self._meter), strict=True):
            log.append(records.document(line))
        self.progress(min(spent / self.budget.amount, 1.0), scalars)

    def _shown(self) -> AbstractContextManager[None]:
        return shown(self.method, self.session.job, self.average)

    def _check_spending(self, spent: float, cost: float, dearest: float) -> None:
        """JobFailure if a step cost what no budget foresees: a first one all of its share, or another far more than
        those before it, beyond the end of the budget. Clock readings are not foreseen, and end no job."""
        currency, amount = self.budget.currency, self.budget.amount
        if self.stand.taken == 1 and spent > self._end * amount * (1 + (OVERSPENT if self._end < 1 else 1e-9)):
            left = self._end * amount - (spent - cost)
            share = f"the first {self._end:.0%} of " if self._end < 1 else ""
            if self.stand.stage:
                share = f"what is left for stage {self.stand.stage + 1} ({left:.3g} {currency}) of "
            split = "; split the budget otherwise" if self.then else ""
            raise JobFailure(
                f"{share}the budget {self.budget} is too small for one step, which costs {cost:.3g} {currency}{split}"
            )
        if currency != "device-seconds" and spent > amount * (1 + OVERSPENT) and cost > 2 * dearest:
            raise JobFailure(
                f"the method overspent: step {self.session.ledger.step} cost {cost:.3g} {currency}, and no step "
                f"before it more than {dearest:.3g}; {spent / amount:.0%} of the budget is spent"
            )

    # -- evaluation ------------------------------------------------------------------------------------------------

    def _evaluate_due(self) -> bool:
        """Evaluate when a fraction (but for the last) has been reached, unless the stage's end brings one anyway."""
        if not self._affords_another() and self._planned is not None:
            return False
        share = self._spent / self.budget.amount
        due = sum(fraction <= share + ROUNDED for fraction in self.fractions[:-1])
        if due == self.stand.evaluated:
            return False
        self._evaluate(self.fractions[due - 1])
        self.stand.evaluated = due
        return True

    def _evaluate(self, fraction: float) -> None:
        job, ledger, engine = self.session.job, self.session.ledger, self.session.engine
        step, spent = ledger.step, ledger.meter.counts()
        folder = self.folder / "evaluations" / str(ledger.step)
        if engine.is_main:
            clear_others(folder.parent, folder.name, fraction)
        with ledger.unmetered(), self._shown(), torch.no_grad():
            weights = digest_of(job.policy.transformer, engine)
            header = EvaluationRecord(
                v=records.VERSION,
                step=step,
                fraction=fraction,
                spent=spent,
                configuration=self.configuration,
                weights=weights,
            )
            painter, before_last = self.evaluator.painter(job.policy), fraction != self.fractions[-1]
            self.evaluator.run(painter, folder, header=header, on_the_way=before_last, tick=self.tick)
            if self.probes:
                self.probes.read(job.policy, folder)
        reset_peak_memory()

    # -- state -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Have the checkpoint written that a resume starts from, beside the steps that follow.

        Steps wait for the copy on the host alone, and for the file before it, if that is still being written.
        """
        engine = self.session.engine
        held = {"job": self.session.state_dict(), "method": self.method.state_dict()}
        if self.average is not None:
            held["average"] = self.average.state_dict()
        # A copy of what lies on the host already, too: the next step would change it.
        state = whole({"v": records.VERSION, **held, **asdict(self.stand)}, keep=engine.is_main, copy=True)
        if engine.is_main:
            self._writer.write(state)
        engine.barrier()  # the others' next step would count the time that the copy takes

    def _resume(self) -> None:
        path, session = self.folder / "checkpoint.pt", self.session
        if session.engine.is_main:
            atomic.sweep(self.folder)
        if session.engine.broadcast(session.engine.is_main and saved.is_damaged(path)):
            raise BenchError(f"{path} is damaged; {AGAIN}")
        state = self._checkpoint(path) if path.exists() else None
        if state and state["stage"]:
            session.go_to(state["begun"])  # where the stage found the job, so that its setup draws what it drew then
            self._enter(state["stage"])
        else:
            self._set_up()
        if state:
            session.load_state_dict(state["job"])
            self.method.load_state_dict(spread(state["method"], self.method.state_dict()))
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.stand = Stand.of(state)
        session.engine.barrier()  # every process has read what the next checkpoint replaces
        for log in (self._train_log, self._meter_log, self._clock_log):
            log.cut_after(session.ledger.step)

    @staticmethod
    def _checkpoint(path: Path) -> dict[str, Any]:
        state = saved.load(path, AGAIN, checked=True)
        if not isinstance(state, dict):
            raise BenchError(f"{path} is damaged; {AGAIN}")
        if not {"stage", "begun"} <= state.keys():
            raise BenchError(f"{path} was left by an older release; {AGAIN}")
        return state

    def _export(self) -> None:
        """Leave the evaluated weights in a form that diffusers and PEFT read."""
        with self._shown():
            # An adapter on weights that no one else has would be of no use.
            self.session.model.save(self.folder / "weights", merge=self.stand.stage > 0)


def _out_of_memory(session: Session, *, begun: bool) -> str:
    """What lowers memory, by what is not used yet.

    Args:
        begun: whether there is a checkpoint, which ties the job to its optimizer.
    """
    engine, compute, knobs = session.engine, session.compute, []
    if compute.micro_batch != 1:
        knobs.append(f"a smaller --micro-batch (now {compute.micro_batch or 'the whole share'})")
    if not compute.gradient_checkpointing:
        knobs.append("--gradient-checkpointing")
    if engine.sharding == "ddp" and engine.world_size > 1:
        knobs.append("--sharding fsdp")
    if compute.evaluation_batch > 1:
        knobs.append(f"a smaller --evaluation-batch (now {compute.evaluation_batch}) if it was in an evaluation")
    if not compute.adam_8bit and not begun:
        knobs.append("--adam-8bit")
    return (
        f"out of memory on {engine.device} at step {session.ledger.step + 1}; lower it with "
        f"{', '.join(knobs) or 'a larger device'}; the same command with it goes on from the last checkpoint"
    )


@contextlib.contextmanager
def _stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Holds Ctrl-C back until a step is whole, since half a step cannot be resumed; a second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    interrupt, usual = threading.Event(), signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: object) -> None:
        interrupt.set()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, ask)
    try:
        yield interrupt.is_set
    finally:
        signal.signal(signal.SIGINT, usual)
