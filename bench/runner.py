"""Runs one job: train within the budget, evaluate at fixed fractions, checkpoint, resume."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import records, saved
from bench.budget import Budget
from bench.engine import spread, whole
from bench.errors import BenchError, JobFailure
from bench.evaluation import Evaluator
from bench.job import Job
from bench.method import PostTrainingMethod

CHECKPOINT_SECONDS = 20.0
CHECKPOINT_SHARE = 20.0
"""Time between checkpoints is at least this many times what writing one takes, so that it costs 5 % at most."""


IDLE_STEPS = 100
"""A job that spends nothing for so long would never end: its budget counts what the method no longer does."""

BARREN_STEPS, BARREN_SHARE = 10, 0.1
"""So many steps that make no update, and cost so much of the budget, end a job: it would spend the rest for nothing."""


OVERSPENT = 0.05
"""Share of the budget that a last step may cost beyond it, unless it costs no more than twice the dearest before it.
Whether there is a next step is decided by that one, so a step may overshoot where costs vary; the report flags it."""


AGAIN = "delete it to start the job again"
"""What to do about a checkpoint that cannot be used."""


class OutOfMemory(Exception):
    """A device is full: what lowers memory. It strikes one process, and the others cannot know."""


@dataclass
class JobRun:
    """One job and its folder.

    Attributes:
        then: stages after the first: a method, and the share of the budget at which it takes over. It starts from the
            weights that the stage before it would be evaluated with.
        fractions: shares of the budget at which the job is evaluated, the last one 1.0.
        progress: called with the share of the budget spent and the latest scalars.
        tick: called with images drawn in evaluations.
        track: called with each step and its scalars, for experiment trackers.
    """

    folder: Path
    method: PostTrainingMethod
    job: Job
    budget: Budget
    fractions: tuple[float, ...]
    evaluator: Evaluator
    then: tuple[tuple[PostTrainingMethod, float], ...] = ()
    progress: Callable[[float, dict[str, float]], None] = lambda share, scalars: None
    tick: Callable[[int], None] = lambda images: None
    track: Callable[[int, dict[str, float]], None] = lambda step, scalars: None

    def run(self) -> None:
        """Train to the end of the budget. Raises JobFailure with the reason if the method breaks a promise."""
        try:
            self._run()
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(_out_of_memory(self.job)) from error
        finally:
            self.job.close()

    def _run(self) -> None:
        main = self.job.engine.is_main
        self._train_log = records.Log(self.folder / "train.jsonl", write=main)
        self._meter_log = records.Log(self.folder / "meter.jsonl", write=main)
        self._clock_log = records.Log(self.folder / "clock.jsonl", write=main)
        self._stage, self._evaluated = 0, 0
        reset_peak_memory()
        self._resume()
        saved, every = time.monotonic(), CHECKPOINT_SECONDS
        with _stop_between_steps() as stopped:
            while self._goes_on():
                self._step()
                evaluated = self._evaluate_due()
                due, stop = self._agree(time.monotonic() - saved > every, stopped())
                if evaluated or due or stop:
                    start = time.monotonic()
                    self.save()
                    saved = time.monotonic()
                    every = max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * (saved - start))
                if stop:
                    raise KeyboardInterrupt
        self._evaluate(self.fractions[-1])
        self.save()
        self._export()

    # -- stages ----------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        """Let the present stage's method choose what trains, with the doors that it declared."""
        self._begun = self.job.position()
        self.job.grant(type(self.method).needs_of(self.method.config))
        self.method.setup(self.job)
        if not self.job.parameters:
            raise JobFailure("the method's setup chose nothing to train")
        self._largest_step, self._idle, self._taken = 0.0, 0, 0
        self._updates_before = self.job.meter.updates

    @property
    def _end(self) -> float:
        """Share of the budget at which the present stage ends."""
        return self.then[self._stage][1] if self._stage < len(self.then) else 1.0

    @property
    def _planned(self) -> int | None:
        """Place in ``fractions`` of the evaluation that the present stage's end brings, if it brings one."""
        return next((i for i, fraction in enumerate(self.fractions) if abs(fraction - self._end) < 1e-6), None)

    def _goes_on(self) -> bool:
        """True if another step is to be taken, by this stage or by the next one."""
        while not self._affords_another():
            if self.job.meter.updates == self._updates_before:
                raise JobFailure(f"the method never called job.update() in its {self._taken} steps: it learned nothing")
            if self._stage == len(self.then):
                return False
            self._next_stage()
        return True

    def _next_stage(self) -> None:
        planned = self._planned
        if planned is not None and planned >= self._evaluated:
            self._evaluate(self.fractions[planned])
            self._evaluated = planned + 1
        with self.method.evaluation_weights(self.job):
            self.job.save_trained(self._weights_of(self._stage + 1), merge=True)
        self._enter(self._stage + 1)
        self.save()

    def _weights_of(self, stage: int) -> Path:
        """Where the weights lie that a later stage starts from."""
        return self.folder / "stages" / str(stage)

    def _enter(self, stage: int) -> None:
        self._stage, self.method = stage, self.then[stage - 1][0]
        self.job.restart(self._weights_of(stage))
        release_memory()  # the earlier stage's model
        self._set_up()

    def _agree(self, due: bool, stop: bool) -> tuple[bool, bool]:
        """Whether to save and whether to stop, for all processes: when one has heard a signal, all stop."""
        flags = self.job.engine.sum(torch.tensor([due and self.job.engine.is_main, stop], dtype=torch.int64))
        return bool(flags[0]), bool(flags[1])

    # -- training --------------------------------------------------------------------------------------------------

    def _affords_another(self) -> bool:
        """True unless the next step would overshoot; a step is taken to cost as much as the stage's dearest so far."""
        spent = self.job.meter.spent(self.budget.currency)
        return spent + self._largest_step <= self._end * self.budget.amount * (1 + 1e-9)

    def _step(self) -> None:
        job, before, start = self.job, self.job.meter.spent(self.budget.currency), time.monotonic()
        self.method.step(job)
        scalars = job.finish_step(time.monotonic() - start, peak_memory())
        self._taken += 1
        spent = job.meter.spent(self.budget.currency)
        self._idle = self._idle + 1 if spent == before else 0
        if self._idle == IDLE_STEPS:
            raise JobFailure(
                f"{IDLE_STEPS} steps in a row spent none of the budget {self.budget}; the method has stopped learning "
                "(in policy gradients: rewards that no longer differ within a prompt)"
            )
        dearest, self._largest_step = self._largest_step, max(self._largest_step, spent - before)
        taken, most = self._taken, self._taken * self._largest_step
        barren = taken == IDLE_STEPS or (taken >= BARREN_STEPS and most >= BARREN_SHARE * self.budget.amount)
        if barren and job.meter.updates == self._updates_before:
            raise JobFailure(f"the method did not call job.update() in its first {taken} steps: it learns nothing")
        self._check_spending(spent, spent - before, dearest)
        for name, value in scalars.items():
            if not math.isfinite(value):
                raise JobFailure(f"the method logged {name} = {value} at step {job.step}")
        self.track(job.step, scalars)
        self._train_log.append({"step": job.step, **scalars})
        self._meter_log.append({"step": job.step, **job.meter.counts()})
        self._clock_log.append(
            {"step": job.step, "seconds": round(job.meter.seconds, 3), "peak_memory": job.meter.peak_memory}
        )
        self.progress(min(job.meter.spent(self.budget.currency) / self.budget.amount, 1.0), scalars)

    def _check_spending(self, spent: float, cost: float, dearest: float) -> None:
        """JobFailure if a step cost what no budget foresees: a first one all of its share, or another far more than
        those before it, beyond the end of the budget. Clock readings are not foreseen, and end no job."""
        currency, amount = self.budget.currency, self.budget.amount
        if self._taken == 1 and spent > self._end * amount * (1 + (OVERSPENT if self._end < 1 else 1e-9)):
            share = f"the first {self._end:.0%} of " if self._end < 1 else ""
            raise JobFailure(
                f"{share}the budget {self.budget} is too small for one step, which costs {cost:.3g} {currency}"
            )
        if currency != "device-seconds" and spent > amount * (1 + OVERSPENT) and cost > 2 * dearest:
            raise JobFailure(
                f"the method overspent: step {self.job.step} cost {cost:.3g} {currency}, where none before it cost "
                f"more than {dearest:.3g}, and took {spent / amount:.0%} of the budget"
            )

    # -- evaluation ------------------------------------------------------------------------------------------------

    def _evaluate_due(self) -> bool:
        """Evaluate when a fraction (but for the last) has been reached, unless the stage's end brings one anyway."""
        if not self._affords_another() and self._planned is not None:
            return False
        share = self.job.meter.spent(self.budget.currency) / self.budget.amount
        due = sum(fraction <= share + 1e-9 for fraction in self.fractions[:-1])
        if due == self._evaluated:
            return False
        self._evaluate(self.fractions[due - 1])
        self._evaluated = due
        return True

    def _evaluate(self, fraction: float) -> None:
        job = self.job
        header = {"step": job.step, "fraction": fraction, "spent": job.meter.counts()}
        with job.unmetered(), self.method.evaluation_weights(job), torch.no_grad():
            painter = self.evaluator.painter(job.policy)
            self.evaluator.run(painter, self.folder / "evaluations" / str(job.step), header=header, tick=self.tick)
        release_memory()

    # -- state -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint that a resume starts from."""
        state = {
            "v": records.VERSION,
            "job": self.job.state_dict(),
            "method": self.method.state_dict(),
            "stage": self._stage,
            "begun": self._begun,
            "largest_step": self._largest_step,
            "taken": self._taken,
            "updates_before": self._updates_before,
            "evaluated": self._evaluated,
        }
        state = whole(state, keep=self.job.engine.is_main)
        if self.job.engine.is_main:
            saved.save(state, self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if self.job.engine.is_main:
            for unfinished in self.folder.glob(".*.partial"):  # a kill while writing left it
                if unfinished.is_file():
                    unfinished.unlink()
        if self.job.engine.broadcast(self.job.engine.is_main and saved.is_damaged(path)):
            raise BenchError(f"{path} is damaged; {AGAIN}")
        state = self._checkpoint(path) if path.exists() else None
        if state and state["stage"]:
            self.job.go_to(state["begun"])  # where the stage found the job, so that its setup draws what it drew then
            self._enter(state["stage"])
        else:
            self._set_up()
        if state:
            self.job.load_state_dict(state["job"])
            self.method.load_state_dict(spread(state["method"], self.method.state_dict()))
            self._largest_step, self._evaluated = state["largest_step"], state["evaluated"]
            self._taken, self._updates_before = state["taken"], state["updates_before"]
        self.job.engine.barrier()  # every process has read what the next checkpoint replaces
        for log in (self._train_log, self._meter_log, self._clock_log):
            log.cut_after(self.job.step)

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
        with self.method.evaluation_weights(self.job):
            # An adapter on weights that no one else has would be of no use.
            self.job.save_trained(self.folder / "weights", merge=self._stage > 0)


def _out_of_memory(job: Job) -> str:
    """What lowers memory, by what is not used yet."""
    compute, knobs = job.compute, []
    if compute.micro_batch != 1:
        knobs.append(f"a smaller --micro-batch (now {compute.micro_batch or 'the whole share'})")
    if not compute.gradient_checkpointing:
        knobs.append("--gradient-checkpointing")
    if job.engine.sharding == "ddp" and job.engine.world_size > 1:
        knobs.append("--sharding fsdp")
    if compute.evaluation_batch > 1:
        knobs.append(f"a smaller --evaluation-batch (now {compute.evaluation_batch}) if it was in an evaluation")
    if not compute.adam_8bit:
        knobs.append("--adam-8bit")
    return (
        f"out of memory on {job.device} at step {job.step + 1}; lower it with {', '.join(knobs) or 'a larger device'}; "
        "the same command with it goes on from the last checkpoint"
    )


@contextlib.contextmanager
def _stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Holds Ctrl-C back until a step is whole, since half a step cannot be resumed; a second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked, usual = threading.Event(), signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, usual)


def reset_peak_memory() -> None:
    """Start a new peak, so that a job's figure does not hold an earlier job's."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    release_memory()
    with contextlib.suppress(OSError):  # not Linux: the peak is then the process's
        Path("/proc/self/clear_refs").write_text("5")


def release_memory() -> None:
    """Give what was freed back to the system, where the C library can (glibc keeps it otherwise)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_memory() -> int:
    """Bytes: the device's peak allocation on CUDA, the process's peak resident set on CPU."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024


def write_status(folder: Path, status: str, reason: str | None = None) -> None:
    """Say how a job stands: started, finished, failed or interrupted, with the reason."""
    records.write_json(folder / "status.json", {"v": records.VERSION, "status": status, "reason": reason})


def read_status(folder: Path) -> dict[str, Any]:
    """Status of a job folder; ``{"status": "new"}`` where there is none."""
    path = folder / "status.json"
    return dict(records.read_json(path)) if path.exists() else {"status": "new", "reason": None}
