"""``bench evaluate``: rows of a suite without training."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import records
from bench.errors import BenchError, concerns_a_path, of_path, stop_if_lost
from bench.evaluate.columns import open_run
from bench.evaluate.config import EvaluationConfig
from bench.evaluate.subjects import Subject, expand, find_subject, trained_transformer
from bench.evaluate.sweep import EvaluatedRow, rows_of, swept_by
from bench.evaluate.workbench import EvaluationWorkbench
from bench.experiment.recorded import untrained_header, untrained_record
from bench.experiment.run import Outcome, Workspace
from bench.machine.locks import EXPERIMENT, hold_lock
from bench.machine.progress import Progress
from bench.records import atomic
from bench.records.schema import EvaluationRecord, JobRecord
from bench.sampling import levels
from bench.sampling.names import EULER

if TYPE_CHECKING:
    from bench.backbone.loader import Backbone
    from bench.backbone.policy import Policy
    from bench.machine.engine import Engine
    from bench.metric import Metric


def evaluate(
    config: EvaluationConfig, workspace: Workspace, progress: Progress, *, engine: Engine | None = None
) -> Outcome:
    """Evaluate each of ``what``; one that cannot be had is in the outcome, and the others go on.

    One whose probes cannot be read is in the outcome too. It has its scores.

    Where several processes share the work it stops them all instead, with a BenchError that names it.

    Rows are kept: the same command goes on where it was stopped, and another ``what`` or scale is added to them.
    """
    from bench.machine.engine import Engine

    engine = engine or Engine.from_environment(dtype=config.dtype)
    folder = workspace.runs / config.run_name
    names, left_out = expand(config.what)
    if left_out:
        progress.say(f"left out, because they are neither base nor job: {', '.join(left_out)}")
    failed, subjects = dict[str, str](), dict[str, Subject]()
    for what in names:
        with _kept(what, failed, engine, progress):
            subject = find_subject(what, backbone=config.backbone, revision=config.revision)
            if subject.kind != "images" and config.passes != "score":  # what is to be fetched comes before all drawing
                engine.main_first(partial(subject.source.folder, offline=config.offline))
            subjects[what] = subject
    if not subjects:  # nothing is written for nothing
        return Outcome(folder, failed)
    if config.revision and all(subject.revision != config.revision for subject in subjects.values()):
        raise BenchError(
            f"--revision {config.revision} is of a hub id, and {', '.join(subjects)} names none; leave it out"
        )
    with hold_lock(folder, EXPERIMENT, engine, progress.say):
        if engine.is_main:
            atomic.sweep_below(folder)
        suite, metrics, chosen = open_run(folder, config, engine)
    workbench = EvaluationWorkbench(config, suite, folder, workspace.cache, engine, progress)
    for what, subject in subjects.items():
        with _kept(what, failed, engine, progress):
            scored = {} if config.passes == "generate" else {name: metrics[name] for name in chosen}
            rows = _Rows(workbench, subject)
            rows.run(scored)
            if rows.unread:
                failed[what] = rows.unread
    return Outcome(folder, {what: failed[what] for what in names if what in failed})


@contextmanager
def _kept(what: str, failed: dict[str, str], engine: Engine, progress: Progress) -> Iterator[None]:
    """Keep what stops one subject in ``failed``, so that the others go on. A full disk and a lost device stop all."""
    try:
        yield
    except Exception as fault:
        stop_if_lost(fault)
        if isinstance(fault, OSError) and concerns_a_path(fault):
            error: Exception = of_path(fault)
        else:
            error = fault
        if not isinstance(error, BenchError):
            raise
        if isinstance(error, records.DiskFull):
            raise error from fault
        if engine.world_size > 1:  # the others may be inside a collective and cannot know
            raise BenchError(f"{what}: {error}") from error
        progress.say(f"{what}: {error}")
        failed[what] = str(error)


class _Rows:
    """One subject on one suite: a row, or one for each scale of a sweep."""

    def __init__(self, workbench: EvaluationWorkbench, subject: Subject) -> None:
        self.workbench, self.subject = workbench, subject
        self.config, self.suite = workbench.config, workbench.suite
        self.engine, self.progress = workbench.engine, workbench.progress
        self.rows = rows_of(self.config, self.suite, workbench.run, subject)
        self.unread = ""  # why there are no measures of exposure bias

    def run(self, metrics: Mapping[str, Metric]) -> None:
        """Draw what is missing, and score it with ``metrics``."""
        if self.subject.kind == "images" and self.config.probes:
            raise BenchError(f"{self.subject.what} holds images, and probes read a model; leave --probes out")
        if self.subject.kind == "images" and (flag := swept_by(self.config)):
            raise BenchError(f"{self.subject.what} holds images, and {flag} draws some; leave one of them out")
        with ExitStack() as held:
            for folder in sorted({row.folder for row in self.rows}):  # in one order: nobody waits in a circle
                held.enter_context(hold_lock(folder.parent, folder.name, self.engine, self.progress.say))
            self._run(metrics)

    def _run(self, metrics: Mapping[str, Metric]) -> None:
        header = untrained_header()
        missing = [row for row in self.rows if not self.engine.broadcast(row.drawn)]
        if self.config.passes == "score" and missing:
            raise BenchError(f"{missing[0].folder} holds no images yet; leave --pass score out, or generate first")
        if self.config.passes == "score":
            self._check_identity()
        if self.subject.kind == "images":
            self._collect(header)
        elif self.config.passes != "score":
            self._draw(header)
        if metrics:
            self._score(metrics)

    def _check_identity(self) -> None:
        """BenchError if the images are of other weights than a transformer or a LoRA has now."""
        identity = self.engine.main_first(self.subject.identity)
        for row in self.rows:
            about = records.read_json(row.folder / "job.json").get("evaluated") or {}
            if identity is not None and about.get("identity", identity) != identity:
                raise self._of_something_else(row)

    def _of_something_else(self, row: EvaluatedRow) -> BenchError:
        return BenchError(
            f"{row.folder} holds an evaluation of something else that was called {self.subject.what!r}, or "
            "drawn in another way; give this one a name with --name, or delete the folder"
        )

    def _score(self, metrics: Mapping[str, Metric]) -> None:
        from bench.evaluation.scoring import count_missing, score_suite
        from bench.records.status import write_status

        left = sum(count_missing(row.suite, metrics, row.evaluation, again=True) for row in self.rows)
        with self.progress.task(f"score {self.subject.label}", max(left, 1)) as task:
            for row in self.rows:
                score_suite(row.suite, metrics, row.evaluation, engine=self.engine, again=True, tick=task.advance)
                if self.engine.is_main:
                    write_status(row.folder, "finished")

    def _begin(self, row: EvaluatedRow, about: dict[str, Any]) -> None:
        """Write ``job.json`` first, or see that it is of the same subject."""
        from bench.records.status import write_status

        path = row.folder / "job.json"
        about = {"kind": self.subject.kind, "source": self.subject.what.rstrip("/") or "/"} | row.about | about
        if path.exists():
            record = records.read_raw(JobRecord, path)
            held, wanted = (dict(levels.with_name(each)) for each in (record.get("evaluated") or {}, about))
            # How a scale was chosen is no part of what a row is: one that was named draws the same pictures.
            if held | {"chosen": None} != wanted | {"chosen": None}:
                raise self._of_something_else(row)
            if "chosen" in about and "chosen" not in held:
                records.write_json(path, record | {"evaluated": about})
            return
        if self.subject.kind != "images":  # what is there was drawn by something that no record names any more
            shutil.rmtree(row.folder / "evaluations", ignore_errors=True)
        head: dict[str, Any] = {"job": row.folder.name, "method": records.EVALUATED}
        head |= {"training": row.training} if row.training else {}
        records.write_record(path, untrained_record(**head, label=row.label, evaluated=about))
        write_status(row.folder, "started")

    def _collect(self, header: EvaluationRecord) -> None:
        from bench.evaluation.collecting import collect_suite

        assert self.subject.path is not None
        (row,) = self.rows
        if self.engine.is_main:
            self._begin(row, collect_suite(row.suite, self.subject.path, row.evaluation, header=header))
        self.engine.barrier()

    def _draw(self, header: EvaluationRecord) -> None:
        import torch

        from bench.backbone.family import DRAWN, SD3, check_family
        from bench.evaluation import draw_suite

        folder = self.engine.main_first(lambda: self.subject.source.folder(offline=self.config.offline))
        family = check_family(folder, DRAWN)
        if family is not SD3 and self.subject.kind != "pipeline":
            raise BenchError(f"{self.subject.backbone} is no pipeline of the SD3 family; give one with --backbone")
        if family is not SD3 and (flag := swept_by(self.config)):
            raise BenchError(
                f"{self.subject.what} is drawn with settings of its own, and {flag} sweeps the SD3 family alone; "
                "leave one of them out"
            )
        if family is not SD3 and self.config.probes:
            raise BenchError(
                f"{self.subject.what} is not of the SD3 family, and probes read that alone; leave --probes out"
            )
        images = self.suite.images() * len(self.rows)
        with self.progress.task(f"draw {self.subject.label}", images) as task:

            def draw(row: EvaluatedRow, painter: Any) -> None:
                draw_suite(
                    row.suite, painter, row.evaluation,
                    header=header, engine=self.engine, batch=self.config.evaluation_batch, tick=task.advance,
                )  # fmt: skip

            try:
                if family is SD3:
                    self._with_policy(draw)
                else:
                    self._with_pipeline(folder, draw)
            except torch.OutOfMemoryError as error:
                raise BenchError(
                    f"out of memory on {self.engine.device}; draw fewer images together with --evaluation-batch (now "
                    f"{self.config.evaluation_batch}): the same command goes on with those that are missing"
                ) from error

    def _with_pipeline(self, folder: Path, draw: Callable[[EvaluatedRow, Any], None]) -> None:
        """Draw with diffusers' own pipeline, for a family that has no policy code."""
        from bench.backbone.context import ContextPipeline

        (row,) = self.rows
        pipeline = ContextPipeline(
            str(folder),
            offline=self.config.offline,
            device=self.engine.device,
            dtype=self.engine.dtype,
            max_sequence_length=self.config.max_sequence_length,
        )
        if self.engine.is_main:
            about = pipeline.describe()
            sampler = {key: about.pop(key) for key in ("steps", "guidance_scale", "resolution")}
            self._begin(row, about | {"id": self.subject.what, "sampler": sampler})
        try:
            draw(row, pipeline)
        finally:
            pipeline.close()

    def _with_policy(self, draw: Callable[[EvaluatedRow, Any], None]) -> None:
        """Draw with the policy code that trains; weights and conditions are loaded once for all rows."""
        from bench.backbone import loader
        from bench.backbone.policy import Policy
        from bench.evaluation import Conditions, PolicyPainter

        assert self.subject.backbone is not None
        backbone = loader.find(
            self.subject.backbone,
            revision=self.subject.revision,
            offline=self.config.offline,
            resolution=self.suite.sampler.resolution,
            max_sequence_length=self.config.max_sequence_length,
            engine=self.engine,
        )
        run_source, refusal = self.subject.run_source, None
        if run_source and self.engine.is_main:  # one process reads 30 GB for all
            refusal = run_source.refusal(backbone.fingerprint, backbone.folder)
        if refusal := self.engine.broadcast(refusal):
            raise BenchError(refusal)
        if self.engine.is_main:
            for row in self.rows:
                self._begin(
                    row,
                    {
                        "identity": self.subject.identity(),
                        "backbone": backbone.spec.name,
                        "backbone_hash": backbone.fingerprint,
                        "max_sequence_length": backbone.spec.max_sequence_length,
                        "dtype": str(self.engine.dtype).removeprefix("torch."),
                        "sampler": records.document(row.suite.sampler.record()),
                        **({"chosen": self.config.chosen} if self.config.chosen else {}),
                    },
                )
        missing = [row for row in self.rows if not self.engine.broadcast(row.drawn)]
        if not missing and not self.config.probes:
            return
        conditions = Conditions(backbone, self.suite.texts())
        null = backbone.encode_prompts([""])
        transformer = trained_transformer(self.subject, backbone.folder, self.engine.device)
        policy = Policy(transformer, backbone.scheduler(), null, self.engine)
        with backbone.vae_loaded():
            for row in missing:
                draw(row, PolicyPainter(policy, backbone, row.suite.sampler, conditions))
        if self.config.probes:
            self._probe(policy, backbone)

    def _probe(self, policy: Policy, backbone: Backbone) -> None:
        """Read the probes of each row at its sampler's levels. What is wrong with the pairs costs no score."""
        from bench.evaluate.probing import readers

        try:
            for row in self.rows:
                if row.suite.sampler.solver != EULER or row.suite.sampler.remedy:
                    self.progress.say(f"{row.label}: no measures of exposure bias: they follow plain Euler steps alone")
                    continue
                for subset, reader in readers(self.workbench, self.subject, row.suite, backbone):
                    reader.read(policy, row.evaluation / records.PROBES / subset)
        except BenchError as error:
            stop_if_lost(error)
            if self.engine.world_size > 1:  # the others may be inside a collective and cannot know
                raise
            self.unread = f"no measures of exposure bias: {error}"
            self.progress.say(f"{self.subject.what}: {self.unread}")
