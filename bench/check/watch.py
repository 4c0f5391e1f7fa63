"""What a method does beside the doors of its job, and in which line of its own file."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor

from bench.job import Job
from bench.plugins import place
from bench.plugins.blame import MethodFiles


class Watch:
    """Sees a job's forwards and losses.

    Attributes:
        unmetered: where a forward of the transformer went past ``Policy``, or None.
        not_finite: what was no number, and where; or None.
    """

    def __init__(self, job: Job, files: MethodFiles) -> None:
        self.unmetered: str | None = None
        self.not_finite: tuple[str, str] | None = None
        self._files = files
        self._watch_forwards(job)
        self._watch_losses(job)

    def _watch_forwards(self, job: Job) -> None:
        """Samples that the transformer sees never outnumber those that the meter has charged.

        Functions, not methods: copies of the transformer keep them. Its blocks are watched too, called on their own.
        """
        seen, depth = 0, 0

        def enter(module: Any, arguments: Any, options: Any) -> None:
            nonlocal seen, depth
            depth += 1
            latents = options.get("hidden_states", arguments[0] if arguments else None)
            if isinstance(latents, Tensor) and latents.device.type != "meta":  # where the harness counts FLOPs
                seen += len(latents)
                if seen > job.meter.forwards and self.unmetered is None:
                    self.unmetered = self._files.of_call()

        def leave(module: Any, arguments: Any, output: Any) -> None:
            nonlocal depth
            depth -= 1

        def inside(module: Any, arguments: Any) -> None:
            if depth == 0 and self.unmetered is None:
                self.unmetered = self._files.of_call()

        transformer = job.policy.transformer
        transformer.register_forward_pre_hook(enter, with_kwargs=True)
        transformer.register_forward_hook(leave, always_call=True)
        for part in (*transformer.transformer_blocks, transformer.pos_embed, transformer.proj_out):
            part.register_forward_pre_hook(inside)

    def _watch_losses(self, job: Job) -> None:
        accumulate, log = job.accumulate, job.log

        def watched_accumulate(loss: Tensor, items: float) -> None:
            self._see("the loss", loss)
            accumulate(loss, items)

        def watched_log(name: str, total: Tensor | float, count: float = 1.0) -> None:
            self._see(name, total)
            log(name, total, count)

        job.accumulate, job.log = watched_accumulate, watched_log  # type: ignore[method-assign]

    def _see(self, name: str, value: Tensor | float) -> None:
        if self.not_finite is None and not bool(torch.isfinite(torch.as_tensor(value).detach()).all()):
            self.not_finite = f"{name} is {float(torch.as_tensor(value).detach().sum())}", self._files.of_call()


def global_states() -> dict[str, bytes | int]:
    """States of the global random generators, to be compared."""
    legacy: Any = np.random.get_state()
    return {
        "torch's": torch.get_rng_state().numpy().tobytes(),
        "numpy's": legacy[1].tobytes() + repr(legacy[2:]).encode(),
        "Python's": hash(random.getstate()),
    }


@contextmanager
def nothing_computed_again() -> Iterator[None]:
    """Inside, ``torch.utils.checkpoint`` keeps activations: the second forward that saves memory is never charged."""

    def direct(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return function(*arguments)

    usual = torch.utils.checkpoint.checkpoint
    torch.utils.checkpoint.checkpoint = direct
    try:
        yield
    finally:
        torch.utils.checkpoint.checkpoint = usual


@contextmanager
def keep_generators() -> Iterator[None]:
    """Leaves the caller's global generators as they were."""
    legacy, python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            np.random.set_state(legacy)
            random.setstate(python)


class DrawTracer:
    """Finds the line of the method in which a global generator moves. Slow: the states are compared after each line."""

    def __init__(self, files: MethodFiles) -> None:
        self.where = ""
        self._files, self._states, self._last = files, global_states(), ""

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Inside, the method's lines are watched."""
        before = sys.gettrace()
        self._states = global_states()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame in self._files and not self.where else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Called before a line runs, so that what has moved was moved by the line before it."""
        if not self.where and global_states() != self._states:
            self.where = self._last
        above = frame.f_back if event == "return" else frame
        if above is not None and above in self._files:
            self._last = place(above.f_code.co_filename, above.f_lineno)
        return self._line
