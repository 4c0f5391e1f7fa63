"""The loop of every stage of `bench pretrain`: a number of steps, on which a killed process goes on.

A stage gives its model, its optimizer and the loss of a step. Learning rate, average, log and state are kept here.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch

from bench import records
from bench.errors import BenchError
from bench.machine.engine import whole
from bench.records import saved
from bench.rng import derive_seed, torch_generator

M = TypeVar("M", bound=torch.nn.Module)

SAVE_EVERY = 180.0
"""Seconds of wall time between two states on disk: what a kill costs at most."""

LOG_EVERY = 100
"""Steps that a line of the log is the mean of."""


@dataclass(frozen=True)
class Schedule:
    """Learning rate by step: a linear warm-up, a plateau, and a linear decay to zero at the last step.

    A training can have a second cycle: a warm restart (Loshchilov & Hutter 2017, arXiv 1608.03983) with a warm-up and
    a linear decay to zero over all its steps.

    Attributes:
        steps: of the whole training, at least 1.
        lr: of the plateau.
        warm_up: steps until ``lr`` is reached.
        decay_share: share of the first cycle's steps over which ``lr`` decays, in (0, 1].
        restart: first step of the second cycle; 0: there is one cycle.
    """

    steps: int
    lr: float
    warm_up: int
    decay_share: float
    restart: int = 0

    def at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        second = 0 < self.restart <= step
        begin, end = (self.restart, self.steps) if second else (0, self.restart or self.steps)
        decay = (end - begin) * (1.0 if second else self.decay_share)
        return self.lr * min(1.0, (step - begin + 1) / self.warm_up) * min(1.0, (end - step) / decay)


@contextmanager
def initial_weights(seed: int, stage: str) -> Iterator[None]:
    """Within it, a model that is made draws its weights from a generator of its own, and from no global one."""
    with torch.random.fork_rng(devices=[]):  # torch and transformers draw them from the global generator
        torch.manual_seed(derive_seed(seed, 0, 0, f"{stage}-weights"))
        yield


def content(values: np.ndarray | torch.Tensor) -> str:
    """SHA-256 of the bytes of an array."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def train(
    model: M,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[torch.Generator], tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]],
    schedule: Schedule,
    state: Path,
    *,
    stage: str,
    seed: int,
    identity: Mapping[str, Any],
    ema: float | None = None,
) -> tuple[M, list[dict[str, float]]]:
    """Train to the end of a schedule, from ``state`` if it is there. Gradients are clipped at a norm of 1.

    A resumed training computes what an uninterrupted one computes: a step draws from a generator of its own.

    Args:
        loss_of: from a step's generator to its loss, and to values for the log.
        state: file with weights, average, optimizer and log, written every ``SAVE_EVERY`` seconds and at the end.
        stage: name of the generator's stream.
        identity: what a training is, besides its schedule, seed and average: plain values that ``==`` compares.
        ema: decay of an exponential moving average of the weights; None: none is kept.

    Returns:
        The average, or the model where there is none; and the log. A line holds the last ``step`` that it is of, the
        ``seconds`` that all steps took so far, and means of ``loss`` and of the values beside it.

    Raises:
        BenchError: the state is damaged, or of a training with another identity.
    """
    average = None
    if ema is not None:
        average = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(ema)
        )
    full = {"stage": stage, "seed": seed, "ema": ema, **asdict(schedule), **identity}
    step, spent, log, sums = 0, 0.0, cast(list[dict[str, float]], []), cast(dict[str, float], {})
    if state.exists():
        earlier = saved.load(state, "delete it to start the stage again")
        other = sorted(key for key in full | earlier["identity"] if full.get(key) != earlier["identity"].get(key))
        if other:
            raise BenchError(
                f"{state} is of a training with another {', '.join(other)}; "
                "delete it to train anew, or give another folder with --out"
            )
        model.load_state_dict(earlier["model"])
        optimizer.load_state_dict(earlier["optimizer"])
        if average is not None:
            average.load_state_dict(earlier["average"])
        step, spent, log, sums = earlier["step"], earlier["seconds"], earlier["log"], earlier["sums"]
    last_save = tick = time.monotonic()
    while step < schedule.steps:
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(step)
        loss, values = loss_of(torch_generator(seed, step, 0, stage))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if average is not None:
            average.update_parameters(model)
        step += 1
        for name, value in {"loss": loss.detach(), **values}.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        now = time.monotonic()
        spent, tick = spent + now - tick, now
        if step % LOG_EVERY == 0 or step == schedule.steps:
            count = step - (log[-1]["step"] if log else 0)
            log.append({"step": step, "seconds": round(spent, 1)} | {name: sums[name] / count for name in sums})
            sums = {}
            print(log[-1], flush=True)
        if now - last_save >= SAVE_EVERY or step == schedule.steps:
            weights = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            if average is not None:
                weights["average"] = average.state_dict()
            saved.save(
                whole(weights) | {"identity": full, "step": step, "seconds": spent, "log": log, "sums": sums}, state
            )
            last_save = tick = time.monotonic()
    return (model if average is None else cast(M, average.module)), log


def write_log(rows: list[dict[str, float]], folder: Path) -> None:
    """Write ``training_log.jsonl``, which ships with the weights."""
    records.write_bytes(folder / "training_log.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
