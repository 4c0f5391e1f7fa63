"""The rows of an experiment, one after the other: the base and the context rows are evaluated, the jobs are trained."""

from __future__ import annotations

import re
import shutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import plugins, records
from bench.backbone.context import ContextPipeline
from bench.backbone.policy import Policy
from bench.errors import FULL, BenchError, DeviceLost, JobFailure, Undeclared, device_lost, of_path
from bench.experiment.config import rows_at_once
from bench.experiment.loop import JobRun, OutOfMemory
from bench.experiment.recorded import (
    DRAWN_UNTRAINED,
    NOT_TRAINED,
    refuse_another_model,
    untrained_header,
    untrained_record,
    write_job,
)
from bench.experiment.session import Session
from bench.experiment.trackers import tracking
from bench.export.model_card import write_card
from bench.machine.locks import hold_lock
from bench.machine.memory import release_memory
from bench.plugins.blame import MethodFiles
from bench.records.schema import JobRecord, Status
from bench.records.status import read_status, write_status
from bench.training.budget import Budget

if TYPE_CHECKING:
    from bench.backbone.condition import TextCondition
    from bench.evaluation import Evaluator, Painter
    from bench.experiment.keys import JobSpec
    from bench.experiment.recipe import Recipe
    from bench.experiment.workbench import Workbench
    from bench.machine.engine import Compute
    from bench.probes.reader import ProbeReader
    from bench.training.data import TrainingData


@dataclass(frozen=True)
class Rows:
    """Does the rows of an experiment, each in its own folder of ``run``.

    Attributes:
        run: the run folder.
        compute: of every job, but for its micro-batch.
        lacking: why there are no preference pairs, where a job needs them.
        readers: what reads probes, by subset.
    """

    workbench: Workbench
    run: Path
    evaluator: Evaluator
    compute: Compute
    lacking: str | None
    readers: Mapping[str, ProbeReader]

    @cached_property
    def null(self) -> TextCondition:
        """The empty prompt's condition."""
        return self.workbench.backbone.encode_prompts([""])

    # -- rows that are not trained ---------------------------------------------------------------------------------

    def evaluate_base(self) -> None:
        """Evaluate the pretrained model: row zero of every table."""
        backbone, probes = self.workbench.backbone, NOT_TRAINED / records.PROBES
        probed = [probes / name / "probes.json" for name in self.readers]
        with self._hold(records.BASE, DRAWN_UNTRAINED, *probed) as unfinished:
            if unfinished:
                policy = Policy(backbone.transformer(), backbone.scheduler(), self.null, self.workbench.engine)
                head = {"job": records.BASE, "method": records.BASE}
                with self._evaluated(head, self.evaluator.painter(policy), backbone.fingerprint):
                    for name, reader in self.readers.items():
                        reader.read(policy, self.run / records.BASE / probes / name)

    def evaluate_context(self, name: str) -> None:
        """Evaluate a pipeline that is never trained, through diffusers: a row beside the base."""
        engine, config = self.workbench.engine, self.workbench.config
        row = f"{records.CONTEXT}--" + re.sub(r"[^\w.-]+", "-", name.strip("/")).lower()
        with self._hold(row, DRAWN_UNTRAINED) as unfinished:
            if not unfinished:
                engine.main_first(lambda: refuse_another_model(self.run / row, name))
                return
            pipeline = engine.main_first(
                lambda: ContextPipeline(name, offline=config.offline, device=engine.device, dtype=engine.dtype)
            )
            head = {"job": row, "method": records.CONTEXT, "label": name.strip("/").rpartition("/")[2]}
            try:
                about = pipeline.describe()
                with self._evaluated(head | {"context": about}, pipeline, records.digest(about)):
                    pass
            finally:
                pipeline.close()

    @contextmanager
    def _evaluated(self, head: dict[str, Any], painter: Painter, weights: str) -> Iterator[None]:
        """Evaluate a row that is not trained; it is finished when the context ends."""
        name, main = head["job"], self.workbench.engine.is_main
        folder = self.run / name
        if main:
            records.write_record(folder / "job.json", untrained_record(**head))
            write_status(folder, "started")
        with self.workbench.progress.job(name, self.workbench.suite.images()) as task:
            self.evaluator.run(painter, folder / NOT_TRAINED, header=untrained_header(weights), tick=task.drew)
        yield
        if main:
            write_status(folder, "finished")

    @contextmanager
    def _hold(self, row: str, *files: Path) -> Iterator[bool]:
        """Hold a row for as long as the context lasts; True unless it is finished, with ``files`` in its folder."""
        engine, progress, folder = self.workbench.engine, self.workbench.progress, self.run / row
        with hold_lock(self.run, row, engine, progress.say):
            complete = all((folder / name).exists() for name in files)
            unfinished = not engine.broadcast(complete and read_status(folder)["status"] == "finished")
            if not unfinished:
                progress.skip(row)
            yield unfinished

    # -- jobs ------------------------------------------------------------------------------------------------------

    def do(self, job: JobSpec, made: JobRecord, data: TrainingData) -> str | None:
        """Do what is left of a job; returns the reason if it failed.

        Raises:
            BenchError: another command has begun it with other settings meanwhile.
        """
        with self._hold(job.name) as unfinished:
            if self.workbench.engine.is_main:
                write_job(self.run / job.name, made, begins=True)
            reason = self._train(job, data) if unfinished else None
            if reason is None:
                self._wind_up(self.run / job.name)
            return reason

    def _train(self, job: JobSpec, data: TrainingData) -> str | None:
        """Train a job and evaluate it; returns the reason if it failed."""
        folder = self.run / job.name
        self._status(folder, "started")
        try:
            self._run(job, data)
        except KeyboardInterrupt:
            self._status(folder, "interrupted", "stopped by the user; the same command resumes it")
            raise
        except Undeclared as error:
            reason = f"{_where(job.recipe, error)}{error}"
        except JobFailure as error:
            reason = str(error)
        except records.DiskFull:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise of_path(error, folder) from error
            if isinstance(error, OSError) and _lies_in(error, folder):
                error = of_path(error)
            foreseen = isinstance(error, (BenchError, OutOfMemory))
            unforeseen = f"{_where(job.recipe, error)}{plugins.one_line(error)} (see traceback.txt)"
            reason = str(error) if foreseen else unforeseen
            if not foreseen:
                records.write_bytes(folder / "traceback.txt", traceback.format_exc().encode())
            if self.workbench.engine.world_size > 1:  # the others wait, and cannot know; the launcher ends them
                self._status(folder, "failed", reason, force=True)
                raise
            if device_lost(error):
                self._status(folder, "failed", reason)
                raise DeviceLost(
                    f"{job.name} failed, and its process has lost the device: {reason}; the same command goes on with "
                    "the other jobs"
                ) from error
        else:
            self._status(folder, "finished")
            return None
        self._status(folder, "failed", reason)
        self.workbench.progress.say(f"{job.name} failed: {reason}")
        return reason

    def _wind_up(self, folder: Path) -> None:
        """What is left to do of a finished job, also where a kill came between its end and this."""
        if not self.workbench.engine.is_main:
            return
        shutil.rmtree(folder / "stages", ignore_errors=True)  # what a resume of later stages started from
        if (folder / "README.md").exists():
            return
        try:
            write_card(folder)
        except BenchError as error:  # the job is whole without it
            self.workbench.progress.say(f"{folder.name}: no model card: {error}")

    def _status(self, folder: Path, status: Status, reason: str | None = None, *, force: bool = False) -> None:
        if self.workbench.engine.is_main or force:
            write_status(folder, status, reason)

    def _run(self, job: JobSpec, data: TrainingData) -> None:
        config, backbone, engine = self.workbench.config, self.workbench.backbone, self.workbench.engine
        needs, stages, folder = job.recipe.needs, job.recipe.stages, self.run / job.name
        reward = self.workbench.metrics[job.reward] if job.reward else None
        if needs.differentiable_reward and reward and not reward.differentiable:
            raise JobFailure(
                f"it needs a reward with a gradient, and {job.reward} has none; give another with --reward"
            )
        if needs.preference_pairs and self.lacking:
            raise JobFailure(self.lacking)
        release_memory()  # an earlier job's model, before there is another
        session = Session.of(
            backbone=backbone,
            null=self.null,
            data=data.only_what(needs),
            seed=job.key.seed,
            reward=reward,
            engine=engine,
            compute=replace(self.compute, micro_batch=rows_at_once(config, backbone.spec.scale, job.key.method)),
            levels=self.workbench.suite.sampler.levels,
        )
        with (
            self.workbench.progress.job(job.name, self.workbench.suite.images(len(config.fractions))) as task,
            tracking(config.trackers if engine.is_main else (), folder) as track,
            backbone.vae_loaded() if reward else nullcontext(),
        ):
            JobRun(
                folder=folder,
                method=stages[0].make(),
                then=tuple((stage.make(), before.end) for before, stage in pairwise(stages)),
                session=session,
                budget=Budget.parse(config.budget),
                fractions=config.fractions,
                evaluator=self.evaluator,
                half_life=config.half_life(self.workbench.suite),
                probes=self.readers.get(job.key.subset),
                configuration=records.configuration(records.read_json(folder / "job.json")),
                progress=task.trained,
                tick=task.drew,
                track=track,
            ).run()


def _where(recipe: Recipe, error: BaseException) -> str:
    """``file:line: `` of the last line of a method that an error passed through, or nothing."""
    places = (MethodFiles.of(stage.method).of_error(error) for stage in reversed(recipe.stages))
    return next((f"{place}: " for place in places if place), "")


def _lies_in(error: OSError, folder: Path) -> bool:
    """Whether an error is about a file of a job's folder, and not about one that a method opens."""
    return isinstance(error.filename, str) and Path(error.filename).is_relative_to(folder)
