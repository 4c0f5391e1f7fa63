"""What the user sees while an experiment runs: one bar for the whole experiment and one for the current work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from bench import records
from bench.errors import shown

PLAIN_SECONDS = 30.0
"""Where the output is no terminal, a line this often instead of bars."""

EVALUATION = 0.15
"""An evaluation's weight in a bar, a job's training being 1. Only the time left depends on it."""


@dataclass
class Task:
    """One piece of work whose bar moves."""

    owner: Progress
    name: str
    total: float
    bar: TaskID | None
    done: float = 0.0
    last_line: float = field(default_factory=time.monotonic)

    def advance(self, amount: float) -> None:
        """Move on by an amount of ``total``."""
        self.set(self.done + amount)

    def set(self, done: float, note: str = "") -> None:
        self.done = min(done, self.total)
        self.owner._moved(self, note)


@dataclass
class JobTask:
    """A job's bar: training and evaluations together, in shares of their expected time."""

    task: Task
    images: int
    whole: Callable[[float], None]
    share: float = 0.0
    drawn: int = 0

    def trained(self, share: float, scalars: dict[str, float]) -> None:
        """Called after each step with the share of the budget spent."""
        self.share = share
        shown = sorted(scalars, key=lambda name: (name not in ("loss", "reward"), name))[:2]
        self._set("  ".join(f"{name} {scalars[name]:.4g}" for name in shown))

    def drew(self, images: int) -> None:
        """Called with images just drawn by an evaluation."""
        self.drawn += images
        self._set("evaluating")

    def _set(self, note: str) -> None:
        self.task.set(self.share + EVALUATION * self.drawn / max(self.images, 1), note)
        self.whole(self.task.done)


class Progress:
    """Bars on a terminal, lines elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bars = self.console.is_terminal and not quiet
        self._rich: RichProgress | None = None
        self._whole: Task | None = None
        self._job_total = 1.0

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(shown(text, keep="\n"), markup=False, soft_wrap=True)

    @contextmanager
    def _live(self) -> Iterator[None]:
        if self._rich is not None or not self._bars:
            yield
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        with RichProgress(*columns, console=self.console, transient=True) as self._rich:
            try:
                yield
            finally:
                self._rich = None

    @contextmanager
    def task(self, name: str, total: float) -> Iterator[Task]:
        """A bar for one piece of work."""
        with self._live():
            bar = self._rich.add_task(escape(shown(name)), total=total, note="") if self._rich else None
            task = Task(self, name, total, bar)
            try:
                yield task
            finally:
                if self._rich and bar is not None:
                    self._rich.remove_task(bar)

    @contextmanager
    def experiment(self, jobs: int, evaluations: int) -> Iterator[None]:
        """The bar over the base's evaluation and ``jobs`` jobs with ``evaluations`` each."""
        self._job_total = 1 + EVALUATION * evaluations
        with self.task(f"experiment ({jobs} jobs)", EVALUATION + jobs * self._job_total) as self._whole:
            try:
                yield
            finally:
                self._whole = None

    def skip(self, name: str) -> None:
        """A job that was finished before."""
        self.say(f"{name}: finished before, kept")
        if self._whole:
            self._whole.advance(self._weight(name))

    def _weight(self, name: str) -> float:
        """What a folder of an experiment weighs in the bar: the base and context rows are evaluated and not trained."""
        untrained = name.partition("--")[0] in (records.BASE, records.CONTEXT)
        return EVALUATION if untrained else self._job_total

    @contextmanager
    def job(self, name: str, images: int) -> Iterator[JobTask]:
        """The bar of one job; the experiment's bar moves with it."""
        total = self._weight(name)
        whole, begun, start = self._whole, self._whole.done if self._whole else 0.0, time.monotonic()

        def move(done: float) -> None:
            if whole:
                whole.set(begun + done)

        with self.task(name, total) as task:
            yield JobTask(task, images, move)
        move(total)
        self.say(f"{name}: finished in {time.monotonic() - start:.0f} s")

    def _moved(self, task: Task, note: str) -> None:
        if self._rich and task.bar is not None:
            self._rich.update(task.bar, completed=task.done, note=note)
        elif not self._bars and time.monotonic() - task.last_line > PLAIN_SECONDS and task is not self._whole:
            task.last_line = time.monotonic()
            self.say(f"{task.name}: {100 * task.done / task.total:.0f} %  {note}")
            sys.stderr.flush()
