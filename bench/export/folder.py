"""A finished job's weights as people load them: a diffusers pipeline folder, or a LoRA adapter, with a model card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import records
from bench.backbone import hub
from bench.backbone.family import SD3
from bench.backbone.source import Source, read_source
from bench.backbone.weights import LORA, TRANSFORMER, adapter_config, find_weights
from bench.errors import BenchError, unknown
from bench.export.model_card import Form, card
from bench.records import BASE, CONTEXT
from bench.records.schema import ExperimentRecord
from bench.records.status import check_finished
from bench.report.study import Study, read_job
from bench.report.text import listed, memory

LINKED = ".safetensors"
"""Files that are hard-linked: large, and replaced rather than edited. A config is copied, so that it can be edited."""

LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*")
"""Terms that go with the weights of a backbone; SD3.5's community licence demands a copy of it."""


def export_job(
    job: Path,
    out: Path,
    *,
    backbone: str | None = None,
    transformer_only: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Write what a finished job trained into a new folder.

    A full fine-tune becomes a complete ``StableDiffusion3Pipeline`` folder: its transformer with the backbone's other
    components. A LoRA becomes a folder that ``load_lora_weights`` takes, and ``peft.PeftModel`` too. Both have a
    ``README.md``. ``out`` appears only when it is whole.

    Args:
        job: ``runs/<experiment>/<job>``.
        out: a folder that is empty or not there.
        backbone: name, folder or hub id of the pipeline that was trained, where it is not where it was.
        transformer_only: leave the other components out.
        say: called with a line for each thing done.

    Raises:
        BenchError: in one line, for anything that the user can mend.
    """
    study, weights = _read(job), find_weights(job)
    source = read_source(job.parent)
    form: Form = "pipeline" if weights.kind == "transformer" and not transformer_only else weights.kind
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BenchError(f"{out} is not an empty folder; give another one with --out")
    folder = _backbone(source, backbone, needed=form == "pipeline", say=say)
    _check_parts(weights.path.parent, form, folder)
    with _whole(out) as partial:
        if form == "lora":
            write_adapter(weights.path, source, partial)
            say(f"{LORA}: the adapter for diffusers; adapter_config.json, adapter_model.safetensors: the same for PEFT")
        else:
            _place(sorted(weights.path.iterdir()), weights.path, partial / TRANSFORMER, TRANSFORMER, say)
        if form == "pipeline" and folder:
            _components(folder, partial, say)
        if folder:
            for pattern in LICENCES:
                _place(sorted(folder.glob(pattern)), folder, partial, "the backbone's terms", say)
        (partial / "README.md").write_text(card(study, source, form, ".", folder), encoding="utf-8")
        say("README.md: the model card")


def _read(job: Path) -> Study:
    """The job's study, if there is such a job and it is finished."""
    if (job / "experiment.json").is_file():
        names = records.read_record(ExperimentRecord, job / "experiment.json").jobs
        raise BenchError(
            f"{job} is an experiment; name one of its jobs, e.g. {job / names[0] if names else 'none yet'}"
        )
    if not (job.parent / "experiment.json").is_file():
        raise BenchError(f"{job} is no job of an experiment; give runs/<experiment>/<job>")
    if job.name == BASE or job.name.startswith(f"{CONTEXT}--"):
        raise BenchError(f"{job.name} was not trained, so there is nothing to export")
    if not job.is_dir():
        raise unknown("job", job.name, [path.parent.name for path in job.parent.glob("*--*--s*/job.json")])
    study = read_job(job)
    check_finished(job, study.jobs[0].status, study.jobs[0].reason)
    return study


def _backbone(source: Source, flag: str | None, *, needed: bool, say: Callable[[str], None]) -> Path | None:
    """The folder of the backbone, whose terms are passed on too.

    One that is named, or whose weights are ``needed``, must be the one that was trained.
    """
    if flag is None and not needed:
        return source.folder_if_here()
    try:
        folder = Source(flag).folder() if flag else source.folder()
    except BenchError as error:
        if flag:
            raise
        raise BenchError(
            f"the backbone {source.name} is not where it was ({error}); give its folder with --backbone, or export the "
            "transformer alone with --transformer-only"
        ) from error
    if needed or flag:
        say(f"comparing {folder} with the backbone that was trained")
        if refusal := source.refusal(hub.fingerprint(folder), folder):
            raise BenchError(refusal)
    return folder


def _check_parts(weights: Path, form: Form, backbone: Path | None) -> None:
    """BenchError if a part that is passed on is not all there: nothing else reads them before someone else does."""
    from bench.backbone.loading import check_part

    if form != "lora":
        check_part(weights, TRANSFORMER)
    if form == "pipeline" and backbone:
        for part in SD3.parts:
            if part != TRANSFORMER:
                check_part(backbone, part)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that is moved there when all went well and taken away when not."""
    out = out.resolve()
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # a kill left it
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(out)  # one step of the file system, also onto an empty folder: a kill leaves all or nothing
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _components(folder: Path, out: Path, say: Callable[[str], None]) -> None:
    """Everything of the backbone but its transformer, and ``model_index.json``."""
    files = [path for path in hub.files(folder) if path.relative_to(folder).parts[0] != TRANSFORMER]
    for name in dict.fromkeys(path.relative_to(folder).parts[0] for path in files):
        chosen = [path for path in files if path.relative_to(folder).parts[0] == name]
        _place(chosen, folder, out, name, say)


def _place(files: list[Path], root: Path, out: Path, name: str, say: Callable[[str], None]) -> None:
    """Bring files from ``root`` into ``out`` under the same paths, and say how."""
    sizes: dict[str, list[int]] = {}
    for file in files:
        target = out / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = file.resolve()  # a file of the hub's cache is a link to a blob
        how = "hard-linked" if file.suffix == LINKED and _link(content, target) else "copied"
        if how == "copied":
            _copy(content, target)
        sizes.setdefault(how, []).append(content.stat().st_size)
    if sizes:
        say(f"{name}: {listed([_sizes_text(how, parts) for how, parts in sizes.items()])}")


def _sizes_text(how: str, sizes: list[int]) -> str:
    size = f" ({memory(sum(sizes))})" if sum(sizes) >= 1024 else ""
    return f"{len(sizes)} file{'s' if len(sizes) > 1 else ''} {how}{size}"


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    size, free = source.stat().st_size, shutil.disk_usage(target.parent).free
    if size > free:
        raise BenchError(
            f"{source} ({memory(size)}) does not fit on the disk of --out, where {memory(free)} is free; free some, or "
            "give a folder on the backbone's disk, where it is hard-linked"
        )
    shutil.copyfile(source, target)


def write_adapter(file: Path, source: Source, out: Path) -> None:
    """A LoRA for diffusers as it is, and for PEFT under the names that PEFT gives."""
    from peft import LoraConfig
    from safetensors.torch import load_file, save_file

    try:
        config = LoraConfig(**adapter_config(file))
    except (TypeError, ValueError) as error:
        raise BenchError(f"{file} holds a configuration that peft does not read ({error})") from error
    config.base_model_name_or_path = source.name if source.kind == "hub" else None
    shutil.copyfile(file, out / LORA)
    prefix = f"{TRANSFORMER}."
    renamed = {f"base_model.model.{key.removeprefix(prefix)}": value for key, value in load_file(file).items()}
    save_file(renamed, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(str(out))
