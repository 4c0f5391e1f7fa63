"""The rehearsal of one stage of a row: its setup, two steps, a batch of an evaluation, a checkpoint and a resume."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from bench.backbone.condition import TextCondition
from bench.errors import BenchError, JobFailure
from bench.evaluation.painters import Conditions, PolicyPainter
from bench.experiment.session import Session, follow, shown
from bench.machine.engine import Compute, spread, whole
from bench.method import Needs, PostTrainingMethod
from bench.metric import Metric
from bench.plan.architecture import Architecture
from bench.prompt import Prompt
from bench.rehearsal.doors import Enough, RehearsedJob
from bench.rehearsal.group import PretendedEngine
from bench.rehearsal.results import Part, Place, Rehearsal, Setting
from bench.rehearsal.rewards import loaded
from bench.rehearsal.stand_ins import PretendedBackbone, StatedReward, ahead_text, condition, training_data
from bench.rehearsal.tape import AVERAGES, Counts, Peak, Spot, Tape, place_of
from bench.suite import Sampler
from bench.training.average import BudgetAverage
from bench.training.feed import Feed
from bench.training.ledger import Ledger
from bench.training.model import TrainedModel
from bench.training.reward import Reward


@dataclass(frozen=True)
class Stage:
    """What is rehearsed.

    Attributes:
        make: a fresh method.
        needs: that it declared.
        half_life: of the average of the weights that is evaluated, as a share of the budget; 0: there is none.
        ahead: whether captions are encoded beside the training, on a thread whose text encoders stay loaded.
        sampler: of the suite; None: no evaluation is rehearsed.
        rewards: names of the metrics that reward its jobs; none: it is rehearsed with a stand-in.
        short: only a setup, and the first backwards of a step: what their memory takes, and nothing else.
    """

    row: str
    name: str
    make: Callable[[], PostTrainingMethod]
    needs: Needs
    architecture: Architecture
    setting: Setting
    dtype: torch.dtype
    evaluation_batch: int
    half_life: float = 0.0
    ahead: bool = False
    sampler: Sampler | None = None
    rewards: tuple[str, ...] = ()
    short: bool = False

    def shortened(self, setting: Setting) -> Stage:
        """The same under another setting, as far as forwards and backwards go."""
        return replace(self, setting=setting, sampler=None, short=True)


def rehearse(stage: Stage, tape: Tape) -> Rehearsal:
    """Rehearse a stage. An error of the code under rehearsal is its ``problem``."""
    started, run = time.monotonic(), _Run(stage, tape)
    problem = ""
    try:
        with torch.autograd.set_multithreading_enabled(False), tape:
            run.all()
    except (BenchError, JobFailure) as error:
        problem = f"{place_of(error)}: {error}"
    except Exception as error:  # whatever the code under rehearsal raises is what the rehearsal is for
        lines = str(error).strip().splitlines()
        problem = f"{place_of(error)}: {type(error).__name__}: {lines[0] if lines else ''}"
    finally:
        run.close()
    made = Rehearsal(
        row=stage.row,
        stage=stage.name,
        setting=stage.setting,
        parameters=run.parameters,
        trained=run.trained,
        parts=tuple(run.parts),
        short=stage.short,
        reward=run.reward,
        problem=problem,
        seconds=round(time.monotonic() - started, 1),
    )
    run.forget()
    return made


class _Run:
    def __init__(self, stage: Stage, tape: Tape) -> None:
        self.stage, self.tape = stage, tape
        self.parts: list[Part] = []
        self.parameters = self.trained = 0
        self.backbone: Any = None
        self.session: Any = None
        self.method: Any = None
        self.data: Any = None
        self.average: BudgetAverage | None = None
        self.scores: Metric | None = None
        self.reward = ""
        self.held = ExitStack()

    def all(self) -> None:
        """Everything, part by part."""
        setting = self.stage.setting
        engine = PretendedEngine(
            self.tape,
            dtype=self.stage.dtype,
            sharding=setting.sharding,
            processes=setting.processes,
        )
        self.backbone = PretendedBackbone(self.stage.architecture, engine, self.tape)
        with self._part("setup"):
            if self.stage.needs.reward or self.stage.needs.differentiable_reward:
                self.scores, self.reward = self.held.enter_context(loaded(self.stage.rewards, self.tape))
                self.held.enter_context(self.backbone.vae_loaded())  # as ``Rows`` holds it for such a job
            self._set_up()
        if self.stage.short:
            with self._part("first step"):
                self._few_backwards()
            return
        for name in ("first step", "step"):
            with self._part(name):
                self._step()
        if self.stage.sampler is not None:
            with self._part("evaluation"):
                self._evaluate(self.stage.sampler)
        with self._part("checkpoint"):
            state = self._state()
        with self._part("resume"):
            self._resume(state)

    def close(self) -> None:
        """End the threads, and free what a reward and text ahead hold."""
        self._end()
        self.held.close()

    def forget(self) -> None:
        """Let go of the model, so that the next rehearsal begins with an empty device."""
        self.session = self.method = self.backbone = self.data = self.scores = self.average = None
        gc.collect()

    # -- parts -----------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        stage, engine = self.stage, self.backbone.engine
        setting = stage.setting
        compute = Compute(
            micro_batch=setting.micro_batch,
            gradient_checkpointing=setting.gradient_checkpointing,
            adam_8bit=setting.adam_8bit,
            evaluation_batch=stage.evaluation_batch,
        )
        ledger = Ledger(engine)
        null = condition(stage.architecture, 1)
        self.data = training_data(stage.architecture, ahead_text(self.backbone) if stage.ahead else None)
        model = TrainedModel(self.backbone, null, engine, compute, ledger)
        feed = Feed(self.data.only_what(stage.needs), 0, engine)
        reward = Reward(self.scores or StatedReward(), engine)
        job = RehearsedJob(self.backbone, model, ledger, feed, reward, engine, compute, 0)
        job.begin(self.tape)
        self.session = Session(job, engine, compute, ledger, model, feed, reward)
        self.session.grant(stage.needs)
        self.method = stage.make()
        self.method.setup(job)
        if stage.half_life:
            self.average = BudgetAverage(job.parameters, stage.half_life)
            self.tape.name(self.average.values, AVERAGES)
        transformer = job.policy.transformer
        self.parameters = sum(p.numel() for p in transformer.parameters())
        self.trained = sum(p.numel() for p in job.parameters)
        if not self.trained:
            raise JobFailure("the method's setup chose nothing to train")

    def _few_backwards(self) -> None:
        """Forwards and backwards of a step, and no update."""
        self.session.job.show(2, backwards=2)
        with suppress(Enough):
            self.method.step(self.session.job)

    def _step(self) -> None:
        self.method.step(self.session.job)
        follow(self.method, self.session.job, self.average, self.stage.half_life)
        self.session.engine.settle()
        self.session.ledger.finish_step(0.0, 0)

    def _evaluate(self, sampler: Sampler) -> None:
        """A batch of the suite's pictures, as ``JobRun`` draws it."""
        session, count = self.session, self.stage.evaluation_batch
        with session.ledger.unmetered(), shown(self.method, session.job, self.average), torch.no_grad():
            painter = PolicyPainter(session.job.policy, self.backbone, sampler, _Conditions(self.stage.architecture))
            painter.draw([Prompt(str(number), "") for number in range(count)], list(range(count)))

    def _state(self) -> Any:
        """What a checkpoint holds. One process writes it, and the others wait."""
        self.session.engine.barrier()
        held = {"job": self.session.state_dict(), "method": self.method.state_dict()}
        if self.average is not None:
            held["average"] = self.average.state_dict()
        return whole(held)

    def _resume(self, state: Any) -> None:
        """Another process begins, takes the checkpoint up and goes on."""
        self._end()
        self.session = self.method = self.data = self.average = None
        gc.collect()
        self.tape.begin()
        self._set_up()
        self.session.load_state_dict(state["job"])
        self.method.load_state_dict(spread(state["method"], self.method.state_dict()))
        if self.average is not None:
            self.average.load_state_dict(state["average"])
            self.tape.name(self.average.values, AVERAGES)
        self.session.job.name_states()
        self._step()

    def _end(self) -> None:
        """End the session's threads and the one that encodes ahead."""
        if self.session is not None:
            self.session.close()
        if self.data is not None:
            self.data.close()

    # -- books -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        """Inside is a part; what was found of it is kept, also where it fails."""
        tape = self.tape
        gc.collect()
        with tape.of(phase=name):
            tape.begin()
            try:
                yield
            finally:
                self.parts.append(_part_of(name, tape.peaks(), tape.counts, tape.live))


class _Conditions(Conditions):
    """Conditions of prompts that nobody encoded."""

    def __init__(self, architecture: Architecture) -> None:
        self._architecture = architecture

    def __getitem__(self, texts: Sequence[str]) -> TextCondition:
        return condition(self._architecture, len(texts))


def _part_of(name: str, peaks: dict[str, tuple[Peak, dict[str, int]]], counts: Counts, left: int) -> Part:
    highest, kinds = max(peaks.values(), key=lambda each: each[0].size)
    return Part(
        name=name,
        peak=highest.size,
        at=highest.at.what,
        where=highest.at.where,
        kinds=kinds,
        phases={phase: each for phase, (_, each) in peaks.items()},
        left=left,
        operators=counts.operators.total(),
        waits=counts.waits.total(),
        host_bytes=counts.host_bytes,
        waiting=_places(counts.waits),
        crossing=_places(counts.crossings),
        devices=_places(counts.devices),
        dtypes=_places(counts.dtypes),
    )


def _places(spots: Counter[Spot]) -> tuple[Place, ...]:
    return tuple(Place(spot.what, spot.where, count) for spot, count in spots.most_common())
