"""Runs one job: train within the budget, evaluate at fixed fractions, checkpoint, resume."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
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

from bench import records
from bench.budget import Budget
from bench.errors import BenchError
from bench.evaluation import Evaluator
from bench.job import Job, JobFailure
from bench.method import PostTrainingMethod

CHECKPOINT_SECONDS = 20.0


@dataclass
class JobRun:
    """One job and its folder.

    Attributes:
        fractions: shares of the budget at which the job is evaluated, the last one 1.0.
        progress: called with the share of the budget spent and the latest scalars.
        tick: called with images drawn in evaluations.
    """

    folder: Path
    method: PostTrainingMethod
    job: Job
    budget: Budget
    fractions: tuple[float, ...]
    evaluator: Evaluator
    progress: Callable[[float, dict[str, float]], None] = lambda share, scalars: None
    tick: Callable[[int], None] = lambda images: None

    def run(self) -> None:
        """Train to the end of the budget. Raises JobFailure with the reason if the method breaks a promise."""
        self._train_log = records.Log(self.folder / "train.jsonl")
        self._meter_log = records.Log(self.folder / "meter.jsonl")
        self._clock_log = records.Log(self.folder / "clock.jsonl")
        self.method.setup(self.job)
        if not self.job.parameters:
            raise JobFailure("the method's setup chose nothing to train")
        self._largest_step, self._evaluated = 0.0, 0
        reset_peak_memory()
        self._resume()
        saved = time.monotonic()
        with _stop_between_steps() as stopped:
            while self._affords_another():
                self._step()
                evaluated = self._evaluate_due()
                if evaluated or stopped() or time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self.save()
                    saved = time.monotonic()
                if stopped():
                    raise KeyboardInterrupt
        self._evaluate(self.fractions[-1])
        self.save()
        self._export()

    # -- training --------------------------------------------------------------------------------------------------

    def _affords_another(self) -> bool:
        """True unless the next step would overshoot; a step is taken to cost as much as the dearest one so far."""
        spent = self.job.meter.spent(self.budget.currency)
        return spent + self._largest_step <= self.budget.amount * (1 + 1e-9)

    def _step(self) -> None:
        job, before, start = self.job, self.job.meter.spent(self.budget.currency), time.monotonic()
        scalars = self.method.step(job)
        job.meter.steps += 1
        job.meter.seconds += time.monotonic() - start
        job.meter.peak_memory = max(job.meter.peak_memory, peak_memory())
        job.step += 1
        self._largest_step = max(self._largest_step, job.meter.spent(self.budget.currency) - before)
        if job.step == 1 and self._largest_step > self.budget.amount * (1 + 1e-9):
            raise JobFailure(
                f"the budget {self.budget} is too small for one step, which costs {self._largest_step:.3g} "
                f"{self.budget.currency}"
            )
        for name, value in scalars.items():
            if not math.isfinite(value):
                raise JobFailure(f"the method logged {name} = {value} at step {job.step}")
        self._train_log.append({"step": job.step, **scalars})
        self._meter_log.append({"step": job.step, **job.meter.counts()})
        self._clock_log.append(
            {"step": job.step, "seconds": round(job.meter.seconds, 3), "peak_memory": job.meter.peak_memory}
        )
        self.progress(min(job.meter.spent(self.budget.currency) / self.budget.amount, 1.0), scalars)

    # -- evaluation ------------------------------------------------------------------------------------------------

    def _evaluate_due(self) -> bool:
        """Evaluate when a fraction (but for the last) has been reached, unless the last evaluation is next anyway."""
        if not self._affords_another():
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
            self.evaluator.run(job.policy, self.folder / "evaluations" / str(job.step), header=header, tick=self.tick)
        release_memory()

    # -- state -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint that a resume starts from."""
        state = {
            "v": records.VERSION,
            "job": self.job.state_dict(),
            "method": self.method.state_dict(),
            "largest_step": self._largest_step,
            "evaluated": self._evaluated,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        records.write_bytes(self.folder / "checkpoint.pt", buffer.getbuffer())

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        for unfinished in self.folder.glob(".*.partial"):  # a kill while writing left it
            if unfinished.is_file():
                unfinished.unlink()
        if path.exists():
            try:
                state = torch.load(path, weights_only=True)
            except Exception as error:
                raise BenchError(f"{path} is damaged; delete it to start the job again") from error
            self.job.load_state_dict(state["job"])
            self.method.load_state_dict(state["method"])
            self._largest_step, self._evaluated = state["largest_step"], state["evaluated"]
        for log in (self._train_log, self._meter_log, self._clock_log):
            log.cut_after(self.job.step)

    def _export(self) -> None:
        """Leave the evaluated weights in a form that diffusers and PEFT read."""
        transformer, folder = self.job.policy.transformer, self.folder / "weights"
        with self.method.evaluation_weights(self.job):
            if getattr(transformer, "peft_config", None):
                from diffusers import StableDiffusion3Pipeline
                from peft.utils import get_peft_model_state_dict

                StableDiffusion3Pipeline.save_lora_weights(
                    folder, transformer_lora_layers=get_peft_model_state_dict(transformer)
                )
            else:
                transformer.save_pretrained(folder / "transformer")


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
