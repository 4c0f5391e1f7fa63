"""Holds a method to the promises of docs/check-a-method.md, on a random model of a few thousand weights.

A plugin's own test can be ``assert not broken(check_method(MyMethod))``.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.check.ranks import RANKS, Apart, Meeting, RankEngine
from bench.check.watch import DrawTracer, Watch, global_states, keep_generators, nothing_computed_again
from bench.check.world import World, advance, same, weights
from bench.errors import BenchError, JobFailure, Undeclared
from bench.experiment.config import method_config
from bench.experiment.loop import OVERSPENT
from bench.experiment.session import Session
from bench.job import Job
from bench.method import MethodConfig, PostTrainingMethod
from bench.plugins import one_line, undeclared
from bench.plugins.blame import MethodFiles

T = TypeVar("T")
PROMISES = {
    "declares": "configuration, needs and traits",
    "runs": "setup and steps raise nothing",
    "data": "a method uses only what its `needs` declares",
    "finite": "what is logged is finite, and a loss is logged",
    "learns": "weights change, by counted updates",
    "randomness": "no global generator moves, and the same seed gives the same step",
    "compute": "every forward is charged",
    "budget": "no step costs so much more than the steps before it that a budget is overspent",
    "state": "state_dict comes back from a safe checkpoint",
    "resume": "a resumed job goes on bit for bit",
    "evaluation": "evaluation_weights leaves the weights as they were",
    "micro-batches": "micro-batches give the same weights as a whole batch, up to rounding",
    "processes": "two processes train as one does, up to rounding",
}
"""The promises in the order of their checks, each with its sentence."""

BUDGET = 10
"""The smallest budget of the check, in first steps. No step may overspend it."""
STEPS = 4
RESUMED_AT = 2
MICRO_BATCH = 3
"""This size divides few batches. So a mean over micro-batches, where a sum belongs, shows."""
UNCOUNTED = 0.05
"""Share of a step's FLOPs above the charge that is let pass: the harness charges a sample's forward and backward, not
the few products of a gradient to the model's input or of the method's own arithmetic."""
ROUNDING = 1e-2
"""Of the way that the weights move in a step. Where rewards come from pictures, a pixel that rounds the other way moves
every advantage, by 3e-3 (docs/architecture.md)."""


@dataclass(frozen=True)
class Finding:
    """One promise: kept, or ``broken`` and ``where`` (``file:line``, empty where it is no line's fault)."""

    promise: str
    broken: str = ""
    where: str = ""

    @property
    def ok(self) -> bool:
        return not self.broken

    def __str__(self) -> str:
        """As ``bench check`` prints it."""
        if self.ok:
            return f"ok      {self.promise}: {PROMISES[self.promise]}"
        return f"BROKEN  {self.promise}: {self.where + ': ' if self.where else ''}{self.broken}"


def check_method(method: type[PostTrainingMethod], /, **settings: Any) -> list[Finding]:
    """Check every promise, with the method's embedded configuration under ``settings``.

    What cannot be checked since an earlier promise is broken is left out.

    Raises:
        BenchError: a setting that the configuration does not take.
    """
    if problem := undeclared(method):
        return [Finding("declares", problem)]
    config = method_config(method, "embedded", settings)
    with keep_generators():
        return _Check(method, config).run()


def broken(findings: Sequence[Finding]) -> list[str]:
    """The lines of promises that are broken."""
    return [str(finding) for finding in findings if not finding.ok]


@cache
def _world() -> World:
    return World()


class _Broken(Exception):
    """A promise that is broken: how, and where."""

    def __init__(self, promise: str, how: str, where: str = "") -> None:
        super().__init__(how)
        self.finding = Finding(promise, how, where)


@dataclass
class _Trial:
    """A fresh job with a fresh method, set up and watched."""

    check: _Check
    micro_batch: int | None = None
    engine: RankEngine | None = None
    session: Session = field(init=False)
    job: Job = field(init=False)
    method: PostTrainingMethod = field(init=False)
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.session = _world().session(self.check.needs, micro_batch=self.micro_batch, engine=self.engine)
        self.job = self.session.job
        self.watch = Watch(self.job, self.check.files)
        self.method = self._call("__init__", lambda: self.check.kind(self.check.config))

    def setup(self) -> None:
        self._call("setup", lambda: self.method.setup(self.job))
        if not self.job.parameters:
            raise _Broken("learns", "setup() chose nothing to train; call job.train_full or job.train_lora")

    def step(self) -> dict[str, float]:
        logs: dict[str, float] = {}
        self._call(f"step {self.job.step + 1}", lambda: logs.update(advance(self.job, self.method)[0]))
        return logs

    def _call(self, what: str, call: Callable[[], T]) -> T:
        files = self.check.files
        try:
            return call()
        except Apart:
            raise
        except (Exception, SystemExit) as error:
            if self.watch.not_finite:
                raise _Broken("finite", *self.watch.not_finite) from error
            where, text = files.of_error(error), str(error) if isinstance(error, (JobFailure, BenchError)) else ""
            if isinstance(error, Undeclared):
                raise _Broken("data", text, where) from error
            raise _Broken("runs", f"{what} raises {text or one_line(error)}", where) from error

    def states(self) -> bytes:
        """A checkpoint, as the runner writes it."""
        file = io.BytesIO()
        torch.save({"job": self.session.state_dict(), "method": self.method.state_dict()}, file)
        return file.getvalue()

    def close(self) -> None:
        self.session.close()


class _Check:
    def __init__(self, kind: type[PostTrainingMethod], config: MethodConfig) -> None:
        self.kind, self.config, self.files = kind, config, MethodFiles.of(kind)
        self.findings: dict[str, Finding] = {}
        self.trials: list[_Trial] = []
        self.saved: dict[str, Any] | None = None

    def run(self) -> list[Finding]:
        """Findings in the order of ``PROMISES``."""
        try:
            if self._promise("declares", self._declares) and self._promise("runs", self._train):
                for promise, check in (
                    ("learns", self._learns),
                    ("randomness", self._seeded),
                    ("compute", self._compute),
                    ("budget", self._budget),
                    ("state", self._state),
                    ("resume", self._resume),
                    ("evaluation", self._evaluation),
                    ("micro-batches", self._micro_batches),
                    ("processes", self._processes),
                ):
                    self._promise(promise, check)
                for promise in ("data", "finite"):
                    self.findings.setdefault(promise, Finding(promise))
        finally:
            for trial in self.trials:
                trial.close()
        return [self.findings[promise] for promise in PROMISES if promise in self.findings]

    def _promise(self, promise: str, check: Callable[[], None]) -> bool:
        try:
            check()
        except _Broken as error:
            finding = error.finding
            if self.findings.get(finding.promise, Finding(finding.promise)).ok:  # the first breach is told
                self.findings[finding.promise] = finding
            return False
        self.findings.setdefault(promise, Finding(promise))
        return True

    def _trial(self, micro_batch: int | None = None, engine: RankEngine | None = None) -> _Trial:
        trial = _Trial(self, micro_batch, engine)
        self.trials.append(trial)
        return trial

    # -- the training that most promises are read from -------------------------------------------------------------

    def _declares(self) -> None:
        try:
            self.needs = self.kind.needs_of(self.config)
        except Exception as error:
            where = self.files.of_error(error)
            raise _Broken("declares", f"needs_of raises {one_line(error)}", where) from error

    def _train(self) -> None:
        self.main = trial = self._trial()
        self.moved_globals: list[str] = []
        self.logs: list[dict[str, float]] = []
        self.ways: list[list[Tensor]] = []
        self.spent = [0]
        states = global_states()
        self._see_globals(states, "setup()", trial.setup)
        self.start = weights(trial.job)
        try:
            for step in range(STEPS):
                self._see_globals(states, "step()", lambda: self.logs.append(trial.step()))
                self.ways.append(weights(trial.job))
                self.spent.append(trial.job.meter.flops)
                if step + 1 == RESUMED_AT:
                    self._promise("state", self._save)
        finally:
            if self.logs or self.main.watch.not_finite:
                self._promise("finite", self._finite)
            if self.logs or self.main.watch.unmetered is not None:
                self._promise("compute", self._charged)
            if self.moved_globals:
                self.findings["randomness"] = self._moved_globals()

    def _see_globals(self, states: dict[str, Any], where: str, call: Callable[[], None]) -> None:
        try:
            call()
        finally:
            now = global_states()
            if moved := [name for name in now if now[name] != states[name]]:
                self.moved_globals.append(f"{where} draws from {' and '.join(moved)} global generator")
            states.update(now)

    def _moved_globals(self) -> Finding:
        """The finding, with its line. A second run under a tracer finds the line."""
        trial, tracer = self._trial(), DrawTracer(self.files)
        with tracer.tracing():
            try:
                trial.setup()
                for _ in range(STEPS):
                    if not tracer.where:
                        trial.step()
            except _Broken:
                pass
        advice = "take job.noise, job.normal, job.uniform or job.rng"
        return Finding("randomness", f"{self.moved_globals[0]}; {advice}", tracer.where)

    def _finite(self) -> None:
        if self.main.watch.not_finite:
            raise _Broken("finite", *self.main.watch.not_finite)
        for step, logs in enumerate(self.logs, start=1):
            for name, value in logs.items():
                if not math.isfinite(value):
                    raise _Broken("finite", f"step {step} logged {name} = {value}")
        if self.logs and not any("loss" in logs for logs in self.logs):
            where = self.files.of_definition(self.kind.step)
            raise _Broken("finite", "no loss is logged: job.accumulate does it", where)

    # -- promises --------------------------------------------------------------------------------------------------

    @cached_property
    def _again(self) -> _Trial:
        """Another job with the same seed, after a step."""
        trial = self._trial()
        trial.setup()
        self._again_logs = trial.step()
        return trial

    def _learns(self) -> None:
        where = self.files.of_definition(self.kind.step)
        if not self.main.job.meter.updates:
            raise _Broken("learns", f"{STEPS} steps made no update; call job.accumulate and job.update", where)
        if same(self.start, self.ways[-1]):
            raise _Broken("learns", f"{self.main.job.meter.updates} updates left every weight as it was", where)

    def _charged(self) -> None:
        if (where := self.main.watch.unmetered) is not None:
            raise _Broken("compute", "a forward of the model that is not charged; use job.policy", where)

    def _compute(self) -> None:
        """Past the first step, in which the harness counts on models of its own."""
        trial = self._again
        charged, counter = trial.job.meter.flops, FlopCounterMode(display=False)
        fused = sdpa_kernel(SDPBackend.MATH)  # the CPU's fused attention has no formula
        with counter, fused, nothing_computed_again():
            trial.step()
        charged, ran = trial.job.meter.flops - charged, counter.get_total_flops()
        if ran > charged * (1 + UNCOUNTED):
            raise _Broken(
                "compute",
                f"a step ran {ran:.3g} FLOPs and was charged {charged:.3g}; job does not charge all that runs",
                self.files.of_definition(self.kind.step),
            )

    def _budget(self) -> None:
        """No step costs so much that the loop would call the budget overspent."""
        costs = [after - before for before, after in pairwise(self.spent)]
        for step, cost in enumerate(costs[1:], start=1):
            dearest = max(costs[:step])
            budget = max(self.spent[step] + dearest, BUDGET * costs[0])
            if cost > 2 * dearest and cost - dearest > OVERSPENT * budget:
                raise _Broken(
                    "budget",
                    f"step {step + 1} costs {cost:.3g} FLOPs, and no step before it more than {dearest:.3g}: "
                    f"a budget of {budget:.3g} would be overspent by {(cost - dearest) / budget:.0%}",
                    self.files.of_definition(self.kind.step),
                )

    def _save(self) -> None:
        where = self.files.of_definition(self.kind.state_dict)
        try:
            self.saved = torch.load(io.BytesIO(self.main.states()), weights_only=True)
        except Exception as error:
            reason = str(error).partition("\n")[0] or one_line(error)
            how = f"state_dict holds more than tensors and plain values, or raises: {reason}"
            raise _Broken("state", how, self.files.of_error(error) or where) from error

    @cached_property
    def _restored(self) -> _Trial:
        """A job that goes on from the checkpoint."""
        trial = self._trial()
        trial.setup()
        trial.session.load_state_dict(self._copy()["job"])
        try:
            trial.method.load_state_dict(self._copy()["method"])
        except Exception as error:
            raise _Broken("state", f"load_state_dict raises {one_line(error)}", self.files.of_error(error)) from error
        return trial

    def _copy(self) -> dict[str, Any]:
        file = io.BytesIO()
        torch.save(self.saved, file)
        file.seek(0)
        copy: dict[str, Any] = torch.load(file, weights_only=True)
        return copy

    def _state(self) -> None:
        if self.saved is None:
            return
        state = self._restored.method.state_dict()
        if (different := _difference(self.saved["method"], state)) is not None:
            functions = (self.kind.load_state_dict, self.kind.state_dict)
            where = next((place for f in functions if (place := self.files.of_definition(f))), "")
            raise _Broken(
                "state", f"after load_state_dict, {different or 'the state'} differs from what was saved", where
            )

    def _resume(self) -> None:
        if self.saved is None:
            raise _Broken("resume", "there is no state to resume from")
        trial, job = self._restored, self.main.job
        where = self.files.of_definition(self.kind.state_dict) or self.files.of_definition(self.kind.step)
        for step in range(RESUMED_AT, STEPS):
            logs = trial.step()
            for name in self.logs[step].keys() | logs.keys():
                one, other = self.logs[step].get(name), logs.get(name)
                if one != other:
                    how = f"step {step + 1} logs {name} = {other} after a resume and {one} without"
                    raise _Broken("resume", f"{how}; state_dict lacks something that steps carry over", where)
            if not same(weights(trial.job), self.ways[step]):
                raise _Broken("resume", f"step {step + 1} gives other weights after a resume", where)
        if trial.job.meter.counts() != job.meter.counts():
            raise _Broken("resume", "a resumed job is charged another amount", where)
        different = _difference(self.main.method.state_dict(), trial.method.state_dict())
        if different is None:
            different = _difference(self.main.session.state_dict()["ema"], trial.session.state_dict()["ema"])
        if different is not None:
            raise _Broken("resume", f"{different or 'the state'} differs after a resume", where)

    def _evaluation(self) -> None:
        job, where = self.main.job, self.files.of_definition(self.kind.evaluation_weights)
        uncharged = self.main.watch.unmetered
        before = {name: value.clone() for name, value in job.policy.transformer.state_dict().items()}
        trained = [parameter.requires_grad for parameter in job.policy.transformer.parameters()]
        try:
            with self.main.session.ledger.unmetered(), self.main.method.evaluation_weights(job), torch.no_grad():
                inside = job.policy.transformer.state_dict()
                sound = all(bool(torch.isfinite(value).all()) for value in inside.values())
        except (Exception, SystemExit) as error:
            raise _Broken("evaluation", f"it raises {one_line(error)}", self.files.of_error(error) or where) from error
        if uncharged is None and (uncharged := self.main.watch.unmetered) is not None:
            raise _Broken("evaluation", "a forward of the model that is not charged", uncharged)
        if not sound:
            raise _Broken("evaluation", "the weights to be evaluated are not finite", where)
        if (different := _difference(before, dict(job.policy.transformer.state_dict()))) is not None:
            raise _Broken("evaluation", f"evaluation_weights changes {different}", where)
        if trained != [parameter.requires_grad for parameter in job.policy.transformer.parameters()]:
            raise _Broken("evaluation", "evaluation_weights changes which parameters train", where)

    def _seeded(self) -> None:
        if "randomness" in self.findings:
            return
        if not same(weights(self._again.job), self.ways[0]) or self._again_logs != self.logs[0]:
            raise _Broken(
                "randomness",
                "two jobs with the same seed differ after a step: a draw uses a generator that job did not make",
                self.files.of_definition(self.kind.step),
            )

    def _micro_batches(self) -> None:
        trial = self._trial(MICRO_BATCH)
        trial.setup()
        trial.step()
        if (apart := self._apart(trial)) > ROUNDING:
            raise _Broken(
                "micro-batches",
                f"with --micro-batch {MICRO_BATCH} the weights after a step differ by {apart:.1%} of the step: "
                "a loss must be a sum over samples, and each row must have its own draws",
                self.files.of_definition(self.kind.step),
            )

    def _processes(self) -> None:
        meeting, where = Meeting(), self.files.of_definition(self.kind.step)
        ranks = [self._trial(engine=RankEngine(meeting, rank)) for rank in range(RANKS)]

        def train(rank: int) -> dict[str, float]:
            ranks[rank].setup()
            return ranks[rank].step()

        try:
            logs, _ = meeting.run(train)
        except Apart as error:
            how = f"two processes do not make the same calls: {error}; do not branch on what only one of them knows"
            raise _Broken("processes", how, where) from error
        except _Broken as error:
            finding = error.finding
            raise _Broken("processes", f"on two processes {finding.broken}", finding.where) from error
        if not same(*(weights(rank.job) for rank in ranks)):
            raise _Broken("processes", "two processes end a step with different weights", where)
        norm, other = (log.get("grad_norm", 0.0) for log in (self.logs[0], logs))
        apart = max(self._apart(ranks[0]), abs(other - norm) / max(norm, 1e-30))  # Adam's first step hides the size
        if apart > ROUNDING:
            raise _Broken(
                "processes",
                f"on two processes the weights after a step differ by {apart:.1%} of the step: a process holds its "
                "share of the rows, while job.gather and rewards return all rows; batch.rows says which are its own",
                where,
            )
        if (charged := ranks[0].job.meter.flops) != self.spent[1]:
            how = f"two processes are charged {charged:.3g} FLOPs for a step, and one is charged {self.spent[1]:.3g}"
            raise _Broken("processes", how, where)

    def _apart(self, trial: _Trial) -> float:
        """Distance of another trial's weights from the first trial's after a step, as a share of the step's length."""
        start, whole, others = (_flat(values) for values in (self.start, self.ways[0], weights(trial.job)))
        return float((others - whole).norm()) / max(float((whole - start).norm()), 1e-30)


def _flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.double().flatten() for value in values])


def _difference(a: Any, b: Any, path: str = "") -> str | None:
    """Where two states first differ, bit for bit; None if nowhere, and empty if they differ as a whole."""
    match a, b:
        case Tensor(), Tensor():
            equal = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
            return None if equal else path
        case Mapping(), Mapping():
            if a.keys() != b.keys():
                return path
            differences = (_difference(a[key], b[key], f"{path}[{key!r}]") for key in a)
        case (list() | tuple(), list() | tuple()):
            if len(a) != len(b):
                return path
            differences = (_difference(x, y, f"{path}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True)))
        case _:
            return None if type(a) is type(b) and a == b else path
    return next((where for where in differences if where is not None), None)
