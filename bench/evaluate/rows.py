"""``bench evaluate`` and ``bench score``: rows of a suite without training, and further scores of kept images."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bench import records, registry
from bench.errors import BenchError, concerns_a_path, of_path, stop_if_lost, unknown
from bench.evaluate.subjects import Subject, expanded, find_subject, trained_transformer
from bench.evaluate.sweep import Row, rows_of, swept_by
from bench.experiment.run import Outcome, Workspace, untrained_header, untrained_record
from bench.experiment.toml import Settings, read_values, validated
from bench.machine.bounds import LARGEST_SCALE, LONGEST_NAME, MOST_IMAGES, MOST_SCALES, MOST_STEPS, MOST_T5_TOKENS
from bench.machine.locks import EXPERIMENT, turn
from bench.machine.progress import Progress
from bench.records import atomic
from bench.sampling import levels
from bench.sampling.names import EULER

if TYPE_CHECKING:
    from bench.backbone.loader import Backbone
    from bench.backbone.policy import Policy
    from bench.machine.engine import Engine
    from bench.metric import Metric
    from bench.suite import Suite


class EvaluationConfig(Settings):
    """What one ``bench evaluate`` does."""

    what: tuple[str, ...] = Field(min_length=1, description="registered names, hub ids, folders")
    name: str = Field(
        "", pattern=r"^(\w[\w.-]*)?$", max_length=LONGEST_NAME, description="run folder; default: evaluate-<suite>"
    )
    suite: str = "embedded"
    backbone: str | None = Field(None, description="pipeline of a LoRA or a lone transformer")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    offline: bool = Field(False, description="use the hub's cache alone")
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    max_sequence_length: int | None = Field(
        None, gt=0, le=MOST_T5_TOKENS, description="T5 tokens; default: the backbone's"
    )
    evaluation_batch: int = Field(48, gt=0, le=MOST_IMAGES, description="images sampled together")
    passes: Literal["all", "generate", "score"] = "all"
    metrics: tuple[str, ...] = Field(
        (), description="score with these of the suite's alone; name@prompt-set adds a column"
    )
    limit: int | None = Field(None, gt=0, description="prompts per group, for a look")
    steps: tuple[Annotated[int, Field(ge=1, le=MOST_STEPS)], ...] = Field(
        (), max_length=MOST_SCALES, description="of the sampler, a row for each number; default: the suite's"
    )
    solver: tuple[str, ...] = Field((), description="of the sampler, a row for each; default: euler")
    remedy: tuple[str, ...] = Field((), max_length=MOST_SCALES, description="without training, a row for each")
    guidance: tuple[Annotated[float, Field(ge=1, le=LARGEST_SCALE)], ...] = Field(
        (),
        max_length=MOST_SCALES,
        description="scales of classifier-free guidance, a row for each; default: the suite's",
    )
    probes: bool = Field(False, description="measure exposure bias too")
    pairs: str = Field("", description="run whose held-out pairs are read; default: the run of a job or a base")

    @property
    def run_name(self) -> str:
        kind = "sweep" if self.steps or self.solver else "guidance" if self.guidance else "evaluate"
        return self.name or f"{kind}-{self.suite}" + (f"-first-{self.limit}" if self.limit else "")


def read_evaluation(flags: Mapping[str, Any]) -> EvaluationConfig:
    """The configuration that flags make; those that are None are left out. BenchError, one line, for a bad one."""
    values = read_values(None, flags, EvaluationConfig, file="", key="evaluation key")
    config: EvaluationConfig = validated(EvaluationConfig, values, "evaluation: ")
    if config.suite not in registry.table("suites"):
        raise unknown("suite", config.suite, registry.table("suites"))
    return config


def make_suite(config: EvaluationConfig) -> Suite:
    """The suite of an evaluation. BenchError for an unknown name."""
    suite: Suite = registry.load("suites", config.suite)()
    return suite.limited(config.limit) if config.limit else suite


def evaluate(
    config: EvaluationConfig, workspace: Workspace, progress: Progress, *, engine: Engine | None = None
) -> Outcome:
    """Evaluate each of ``what``; one that cannot be had is in the outcome, and the others go on.

    Where several processes share the work it stops them all instead, with a BenchError that names it.

    Rows are kept: the same command goes on where it was stopped, and another ``what`` or scale is added to them.
    """
    from bench.machine.engine import Engine

    engine = engine or Engine.from_environment(dtype=config.dtype)
    folder = workspace.runs / config.run_name
    with turn(folder, EXPERIMENT, engine, progress.say):
        if engine.is_main:
            atomic.sweep_below(folder)
        suite, metrics, chosen = _open_run(folder, config, engine)
    failed = {}
    given, left_out = expanded(config.what)
    if left_out:
        progress.say(f"left out, being neither base nor job: {', '.join(left_out)}")
    for what in given:
        try:
            subject = find_subject(what, backbone=config.backbone, revision=config.revision)
            scored = {} if config.passes == "generate" else {name: metrics[name] for name in chosen}
            _Rows(config, suite, engine, progress, folder, subject, workspace.cache).run(scored)
        except records.DiskFull:
            raise
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
    return Outcome(folder, failed)


def _open_run(folder: Path, config: EvaluationConfig, engine: Engine) -> tuple[Suite, dict[str, Metric], list[str]]:
    """The suite with the run's columns, their metrics, and which of them to score with.

    Writes ``experiment.json``: a suite, the columns added to it, and no job.
    """
    from bench.report.study import Experiment

    suite, path = make_suite(config), folder / "experiment.json"
    old = engine.broadcast(records.read_raw(Experiment, path) if engine.is_main and path.exists() else None)
    own = {name: prompts.name for name, prompts in suite.metrics()}
    known = own | {m["name"]: m["prompt_set"] for m in (old["suite"]["metrics"] if old else ()) if m.get("added")}
    wanted = _columns(suite, [name for name in config.metrics if "@" in name], known)
    alone = [name for name in config.metrics if "@" not in name] + [name for name in wanted if name in own]
    for name in alone:
        if name not in known:
            raise unknown(f"metric of the suite {suite.name}", name, known)
    columns = known | wanted
    suite = suite.with_metrics(columns)
    metrics: dict[str, Metric] = {name: registry.load("metrics", name)() for name in columns}
    _check_facts(suite, metrics)
    if engine.is_main:
        described = {name: prompts.column(metrics[name]) for name, prompts in suite.metrics()}
        described |= {name: described[name] | {"added": True} for name in columns if name not in own}

        def record(names: Iterable[str]) -> dict[str, Any]:
            about = suite.describe(metrics) | {"metrics": [described[name] for name in names]}
            head = {"v": records.VERSION, "name": config.run_name, "notice": suite.notice}
            return {**head, "suite": about, "jobs": []}

        if old and old | {"suite": levels.with_name(old["suite"])} != record(known):
            raise BenchError(
                f"{folder} was evaluated on another suite or with other metrics; give this one a name with --name, or "
                "delete the folder"
            )
        records.write_json(path, record(columns))
    engine.barrier()
    return suite, metrics, [name for name in columns if name in wanted or name in (alone or known)]


class _Rows:
    """One subject on one suite: a row, or one for each scale of a sweep."""

    def __init__(
        self,
        config: EvaluationConfig,
        suite: Suite,
        engine: Engine,
        progress: Progress,
        run: Path,
        subject: Subject,
        cache: Path,
    ) -> None:
        self.cache = cache
        self.config, self.engine, self.progress, self.subject = config, engine, progress, subject
        self.suite, self.rows = suite, rows_of(config, suite, run, subject)

    def run(self, metrics: Mapping[str, Metric]) -> None:
        """Draw what is missing, and score it with ``metrics``."""
        if self.subject.kind == "images" and self.config.probes:
            raise BenchError(f"{self.subject.what} holds images, and probes read a model; leave --probes out")
        if self.subject.kind == "images" and (flag := swept_by(self.config)):
            raise BenchError(f"{self.subject.what} holds images, and {flag} draws some; leave one of them out")
        with ExitStack() as held:
            for folder in sorted({row.folder for row in self.rows}):  # in one order: nobody waits in a circle
                held.enter_context(turn(folder.parent, folder.name, self.engine, self.progress.say))
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

    def _of_something_else(self, row: Row) -> BenchError:
        return BenchError(
            f"{row.folder} holds an evaluation of something else that was called {self.subject.what!r}, or "
            "drawn in another way; give this one a name with --name, or delete the folder"
        )

    def _score(self, metrics: Mapping[str, Metric]) -> None:
        from bench.evaluation.scoring import owed, score_suite
        from bench.records.status import write_status

        left = sum(owed(row.suite, metrics, row.evaluation, again=True) for row in self.rows)
        with self.progress.task(f"score {self.subject.label}", max(left, 1)) as task:
            for row in self.rows:
                score_suite(row.suite, metrics, row.evaluation, engine=self.engine, again=True, tick=task.advance)
                if self.engine.is_main:
                    write_status(row.folder, "finished")

    def _begin(self, row: Row, about: dict[str, Any]) -> None:
        """Write ``job.json`` first, or see that it is of the same subject."""
        from bench.records.status import write_status
        from bench.report.study import JobRecord

        path = row.folder / "job.json"
        about = {"kind": self.subject.kind, "source": self.subject.what.rstrip("/") or "/"} | row.about | about
        if path.exists():
            if levels.with_name(records.read_raw(JobRecord, path).get("evaluated") or {}) != levels.with_name(about):
                raise self._of_something_else(row)
            return
        if self.subject.kind != "images":  # what is there was drawn by something that no record names any more
            shutil.rmtree(row.folder / "evaluations", ignore_errors=True)
        head = {"job": row.folder.name, "method": records.EVALUATED}
        records.write_json(path, untrained_record(head | {"label": row.label, "evaluated": about}))
        write_status(row.folder, "started")

    def _collect(self, header: dict[str, Any]) -> None:
        from bench.evaluation.collecting import collect_suite

        assert self.subject.path is not None
        (row,) = self.rows
        if self.engine.is_main:
            self._begin(row, collect_suite(row.suite, self.subject.path, row.evaluation, header=header))
        self.engine.barrier()

    def _draw(self, header: dict[str, Any]) -> None:
        import torch

        from bench.backbone.family import DRAWN, SD3, check_family
        from bench.evaluation import draw_suite

        folder = self.engine.main_first(lambda: self.subject.origin.folder(offline=self.config.offline))
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

            def draw(row: Row, painter: Any) -> None:
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

    def _with_pipeline(self, folder: Path, draw: Callable[[Row, Any], None]) -> None:
        """Draw with diffusers' own pipeline, for a family that has no policy code."""
        from bench.backbone.context import ContextPipeline

        (row,) = self.rows
        pipeline = ContextPipeline(
            str(folder), offline=self.config.offline, device=self.engine.device, dtype=self.engine.dtype
        )
        if self.engine.is_main:
            about = pipeline.describe()
            sampler = {key: about.pop(key) for key in ("steps", "guidance_scale", "resolution")}
            self._begin(row, about | {"id": self.subject.what, "sampler": sampler})
        try:
            draw(row, pipeline)
        finally:
            pipeline.close()

    def _with_policy(self, draw: Callable[[Row, Any], None]) -> None:
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
        recorded, refusal = self.subject.recorded, None
        if recorded and self.engine.is_main:  # one process reads 30 GB for all
            refusal = recorded.refusal(backbone.fingerprint, backbone.folder)
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
                        "sampler": row.suite.sampler.record(),
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
                    continue  # probes follow Euler steps alone, so they would say the same of each
                found = readers(
                    self.subject, self.config.pairs, row.suite, backbone, self.cache, self.engine, self.progress
                )
                for subset, reader in found:
                    reader.read(policy, row.evaluation / records.PROBES / subset)
        except BenchError as error:
            if self.engine.world_size > 1:  # the others may be inside a collective and cannot know
                raise
            self.progress.say(f"{self.subject.what}: no measures of exposure bias: {error}")


def score_run(run: Path, names: Sequence[str], progress: Progress) -> None:
    """Score the images that a run keeps: what its suite's metrics owe, and columns that it does not have yet.

    Args:
        run: a folder of ``runs/``; every evaluation in it is scored.
        names: metrics, each as ``name`` or ``name@prompt-set``; empty: those of the run.

    Raises:
        BenchError: one line.
    """
    from bench.machine.engine import Engine

    if not (run / "experiment.json").is_file():
        raise BenchError(f"{run} is no run (it has no experiment.json); give a folder of runs/")
    with turn(run, EXPERIMENT, engine := Engine(), progress.say):
        atomic.sweep_below(run)
        _score_run(run, names, progress, engine)


def _score_run(run: Path, names: Sequence[str], progress: Progress, engine: Engine) -> None:
    from bench.evaluation.scoring import owed, score_suite
    from bench.report.study import Experiment, read_study

    path = run / "experiment.json"
    record = records.read_raw(Experiment, path)
    read_study([run])  # every record is of this version before the first is written again
    suite, known = _suite_of(record, run)
    wanted = _columns(suite, names, known)
    suite = suite.with_metrics(known | wanted)
    metrics = {name: registry.load("metrics", name)() for name in (wanted if names else known)}
    evaluations = sorted(run.glob("*/evaluations/[!.]*/samples.jsonl"))
    _check_facts(suite, metrics)
    for column in record["suite"]["metrics"]:
        if column["name"] in metrics:
            _check_weights(metrics[column["name"]].describe(), column, evaluations, run)
    left = sum(owed(suite, metrics, lines.parent, again=True) for lines in evaluations)
    with progress.task(f"score {run.name}", max(left, 1)) as task:
        for lines in evaluations:
            score_suite(suite, metrics, lines.parent, engine=engine, again=True, keep=metrics, tick=task.advance)
    for metric in metrics.values():
        metric.release()
    columns = {metric["name"]: metric for metric in record["suite"]["metrics"]}
    for name, prompts in suite.metrics():
        if name in metrics:
            added = {"added": True} if name not in known or columns[name].get("added") else {}
            columns[name] = prompts.column(metrics[name]) | added
    record["suite"]["metrics"] = list(columns.values())
    records.write_json(path, record)
    without = [
        cell["error"]
        for lines in evaluations
        for row in records.read_lines(lines)
        for name, cell in row["scores"].items()
        if name in metrics and "error" in cell
    ]
    told = f"; {len(without)} cells have no score, the first: {without[0]}" if without else ""
    progress.say(f"{run.name}: {left} cells tried in {len(evaluations)} evaluations{told}")


def _suite_of(record: dict[str, Any], run: Path) -> tuple[Suite, dict[str, str]]:
    """A run's suite as it is here, and the columns it has: metric → prompt set."""
    name = record["suite"]["name"]
    limit = ""
    if found := re.fullmatch(r"(.+), first (\d{1,9})", name):
        name, limit = found.groups()
    suite: Suite = registry.load("suites", name)()
    suite = suite.limited(int(limit)) if limit else suite
    if suite.version != record["suite"]["version"]:
        raise BenchError(
            f"{run} holds version {record['suite']['version']} of the suite {name}, and this is version "
            f"{suite.version}: its prompts may be others; score it with the release that made it"
        )
    return suite, {metric["name"]: metric["prompt_set"] for metric in record["suite"]["metrics"]}


def _columns(suite: Suite, names: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Metric → prompt set of what was asked for."""
    sets = [prompts.name for prompts in suite.prompt_sets]
    wanted = {}
    for given in names:
        name, at, prompt_set = given.partition("@")
        if name not in registry.table("metrics"):
            raise unknown("metric", name, registry.table("metrics"))
        if at and prompt_set not in sets:
            raise unknown("prompt set", prompt_set, sets)
        if not at and name not in known and len(sets) > 1:
            raise BenchError(f"say which prompts {name} is to score: {' or '.join(f'{name}@{s}' for s in sets)}")
        wanted[name] = prompt_set or known.get(name, sets[0])
        if known.get(name, wanted[name]) != wanted[name]:
            raise BenchError(f"{name} scores {known[name]} in this run already, and a column is of one prompt set")
    return wanted


def _check_facts(suite: Suite, metrics: Mapping[str, Any]) -> None:
    """BenchError if a metric cannot judge its prompts."""
    for name, prompts in suite.metrics():
        for fact in metrics[name].needs_facts if name in metrics else ():
            if any(fact not in prompt.facts for prompt in prompts.prompts):
                raise BenchError(f"{name} needs the fact {fact!r} of a prompt, and those of {prompts.name} have none")


def _check_weights(now: Mapping[str, Any], then: Mapping[str, Any], evaluations: Sequence[Path], run: Path) -> None:
    """BenchError if scores are kept of a metric that now computes with other weights. Failed cells may stand."""
    if then["version"] != now["version"] or then.get("weights") == now.get("weights"):
        return
    cells = (row["scores"].get(now["name"], {}) for path in evaluations for row in records.read_lines(path))
    if any("score" in cell and cell["version"] == now["version"] for cell in cells):
        raise BenchError(
            f"{run} holds scores of {now['name']} with other weights ({then.get('weights')}, and here "
            f"{now.get('weights')}): they would not compare"
        )
