"""Subjects: what is evaluated. A pipeline, a fine-tune, a LoRA, a job of an experiment, or a folder of images."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench import records, registry
from bench.backbone.family import read_json
from bench.backbone.lora_file import config_beside, load_lora
from bench.backbone.source import Source, read_source
from bench.backbone.weights import LORA, PEFT_CONFIG, PEFT_WEIGHTS, TRANSFORMER, find_weights
from bench.errors import BenchError
from bench.records.pictures import SUFFIXES
from bench.records.reading import check_job, experiment_of
from bench.records.schema import ExperimentRecord, JobRecord
from bench.records.status import check_finished, read_status

if TYPE_CHECKING:
    import torch

Kind = Literal["pipeline", "transformer", "lora", "images"]
SLUG = 60


@dataclass(frozen=True)
class Subject:
    """One thing to evaluate.

    Attributes:
        what: as the user named it.
        kind: a whole pipeline; a transformer or a LoRA, which need a backbone; or images that are there already.
        path: of the weights or images; None for a pipeline by registered name or hub id.
        backbone, revision: the pipeline that a transformer or a LoRA belongs to, or the pipeline itself.
        run_source: of a job or a base, the pipeline that its run started from.
    """

    what: str
    kind: Kind
    path: Path | None = None
    backbone: str | None = None
    revision: str | None = None
    run_source: Source | None = None

    @property
    def label(self) -> str:
        """Its row's name: the last part of a path or hub id."""
        return self.what.rstrip("/").rpartition("/")[2] or self.what

    @property
    def slug(self) -> str:
        """The last part of its row's folder; of a long path its end, since a name holds 255 bytes."""
        return re.sub(r"[^\w.-]+", "-", self.what.strip("/.")).lower()[-SLUG:]

    @property
    def source(self) -> Source:
        """Where its pipeline comes from."""
        assert self.backbone is not None
        known = self.run_source if self.run_source and self.run_source.name == self.backbone else None
        return Source(self.backbone, self.revision, known.recorded_kind if known else None)

    def job(self) -> dict[str, Any] | None:
        """Of a job: its run, method, subset, seed and reward. None for anything else, the base of a run included."""
        path = Path(self.what).expanduser() / "job.json"
        if not path.is_file() or path.parent.name == records.BASE:
            return None
        record = records.read_raw(JobRecord, path)
        keys = ("method", "subset", "seed", "reward")
        return {"run": path.absolute().parents[1].name, **{key: record.get(key) for key in keys}}

    def identity(self) -> str | None:
        """SHA-256 of the weights of a transformer or LoRA; None for a pipeline, whose backbone has its own.

        A configuration beside an adapter that says its strength is hashed too.
        """
        if self.kind not in ("transformer", "lora"):
            return None
        assert self.path is not None
        from safetensors import SafetensorError

        whole, files = hashlib.sha256(), [self.path]
        try:
            if self.path.is_dir():
                files = sorted(self.path.rglob("*.safetensors"))
            elif self.kind == "lora" and (beside := config_beside(self.path)):
                files.append(beside)
            for file in files:
                with file.open("rb") as content:
                    whole.update(hashlib.file_digest(content, "sha256").digest())
        except (OSError, SafetensorError) as error:
            named = getattr(error, "filename", None) or self.path
            raise BenchError(
                f"{named} cannot be read ({getattr(error, 'strerror', error)}); give another one"
            ) from error
        return whole.hexdigest()


def expand(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """What to evaluate, each once, and what of ``names`` was left out.

    A run that trained stands for its base and its jobs. Of several things, those that lie in a run and are none of its
    jobs are left out (its records, models for context): the shell's ``runs/<run>/*`` names them too.
    """
    chosen: dict[str, None] = {}
    for what in names:
        run = Path(what).expanduser()
        if run.exists():  # one spelling of a path, whatever it begins with and whatever slashes and dots it has
            path, here = Path(os.path.normpath(run.absolute())), Path.cwd()
            what = str(path.relative_to(here) if path.is_relative_to(here) and path != here else path)
        jobs = _jobs(run) if (run / "experiment.json").is_file() else []
        base = [records.BASE] if jobs and (run / records.BASE).is_dir() else []
        chosen |= dict.fromkeys(f"{what.rstrip('/')}/{name}" for name in (*base, *jobs))
        chosen |= {} if jobs else {what: None}
    other = [what for what in chosen if _beside_jobs(Path(what).expanduser())]
    return ([what for what in chosen if what not in other], other) if len(other) < len(chosen) else ([*chosen], [])


def _beside_jobs(path: Path) -> bool:
    """Whether a path lies in a run and is neither its base nor a job: records, other rows, a launcher's files."""
    experiment = path.parent / "experiment.json"
    return experiment.is_file() and path.name not in (records.BASE, *_jobs(path.parent))


def _jobs(run: Path) -> list[str]:
    return records.read_record(ExperimentRecord, run / "experiment.json").jobs


def find_subject(what: str, *, backbone: str | None = None, revision: str | None = None) -> Subject:
    """Say what ``what`` is.

    Args:
        what: registered name, hub id, or folder.
        backbone: of a transformer or a LoRA that does not say which it is for, or in place of that.
        revision: of a hub id.

    Raises:
        BenchError: one line, where nothing of this kind is there.
    """
    folder = Path(what).expanduser()
    if folder.is_file():
        if folder.suffix == ".safetensors":  # kohya's tools give a LoRA any name
            return Subject(what, "lora", folder, _needed(backbone, None, folder), revision)
        raise BenchError(f"{what} is a file; name the folder of a model or of images")
    if what in registry.table("backbones") or not folder.is_dir():
        return Subject(what, "pipeline", backbone=what, revision=revision)
    if (folder / "job.json").is_file():
        return _job(what, folder, backbone, revision)
    if (folder / "experiment.json").is_file():
        jobs = sorted(path.parent.name for path in folder.glob("*/weights")) or ["<job>"]
        raise BenchError(f"{what} is a run; name one of its jobs, e.g. {folder / jobs[0]}, or use `bench score {what}`")
    if (folder / "model_index.json").is_file():
        return Subject(what, "pipeline", folder, what)
    if (folder / LORA).is_file():
        return Subject(what, "lora", folder / LORA, _needed(backbone, _peft_base(folder), folder), revision)
    if (folder / PEFT_WEIGHTS).is_file():
        return Subject(what, "lora", folder / PEFT_WEIGHTS, _needed(backbone, _peft_base(folder), folder), revision)
    for candidate in (folder / TRANSFORMER, folder):
        if _class_name(candidate) == "SD3Transformer2DModel":
            return Subject(what, "transformer", candidate, _needed(backbone, None, folder), revision)
    if (folder / "samples.jsonl").is_file() or any(path.suffix.lower() in SUFFIXES for path in folder.rglob("*")):
        return Subject(what, "images", folder)
    raise BenchError(
        f"{what} holds no pipeline (model_index.json), no transformer (config.json), "
        f"no LoRA ({LORA} or {PEFT_WEIGHTS}), no job (job.json) and no images"
    )


def _job(what: str, folder: Path, backbone: str | None, revision: str | None) -> Subject:
    source = read_source(folder.parent)
    revision = revision if backbone else source.revision
    if folder.name == records.BASE:
        return Subject(what, "pipeline", backbone=backbone or source.name, revision=revision, run_source=source)
    experiment_of(folder)
    check_job(folder)
    status = read_status(folder)
    check_finished(folder, status["status"], status["reason"])
    weights = find_weights(folder)
    kind: Kind = "lora" if weights.kind == "lora" else "transformer"
    return Subject(what, kind, weights.path, backbone or source.name, revision, run_source=source)


def _needed(flag: str | None, recorded: str | None, folder: Path) -> str:
    if flag or recorded:
        return str(flag or recorded)
    raise BenchError(f"{folder} does not say which pipeline it is for; add --backbone")


def _peft_base(folder: Path) -> str | None:
    path = folder / PEFT_CONFIG
    name = read_json(path, "").get("base_model_name_or_path") if path.is_file() else None
    return name if isinstance(name, str) else None


def _class_name(folder: Path) -> str | None:
    path = folder / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("_class_name"))
    except (OSError, ValueError, AttributeError):
        return None


def trained_transformer(subject: Subject, folder: Path, device: torch.device) -> Any:
    """The transformer of a subject on its backbone's ``folder``, in float32 and evaluation mode.

    Raises:
        BenchError: the weights are of another architecture than the backbone.
    """
    import torch

    from bench.backbone import loading

    if subject.kind == "transformer":
        assert subject.path is not None
        _same_architecture(subject.path, folder / TRANSFORMER)
        return loading.load_transformer(subject.path, torch.float32, device, part=None)
    transformer = loading.load_transformer(folder, torch.float32, device)
    if subject.kind == "lora":
        assert subject.path is not None
        load_lora(transformer, subject.path)
    return transformer


def _same_architecture(own: Path, backbone: Path) -> None:
    """BenchError if two transformers' configurations differ in anything but where they came from.

    One that an older diffusers wrote lacks what was not to be set then, and means its default.
    """
    from diffusers import SD3Transformer2DModel

    parameters = inspect.signature(SD3Transformer2DModel.__init__).parameters.values()
    usual = {p.name: list(p.default) if isinstance(p.default, tuple) else p.default for p in parameters}
    ours, theirs = (
        usual | {key: value for key, value in read_json(folder / "config.json", "").items() if key[:1] != "_"}
        for folder in (own, backbone)
    )
    differing = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if differing:
        raise BenchError(
            f"{own} is not a transformer of the backbone {backbone.parent} ({', '.join(differing)} differ); "
            "give the pipeline that it was trained from with --backbone"
        )
