"""The source of a run: the pretrained pipeline that it started from, and where that lies now."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench import records, registry
from bench.backbone import hub
from bench.errors import BenchError
from bench.records.schema import ExperimentRecord, RunConfig

Kind = Literal["registered", "folder", "hub"]


@dataclass(frozen=True)
class Source:
    """The backbone as the experiment named it: a registered name, a local folder or a hub id.

    Attributes:
        revision: a hub id's, None for its main branch.
        recorded_kind: which of the three it is, where a record says so; a name alone can be two of them.
        hash: ``hub.fingerprint`` of the weights that the run used, where a record says it.
    """

    name: str
    revision: str | None = None
    recorded_kind: Kind | None = None
    hash: str | None = None

    @property
    def kind(self) -> Kind:
        """A registered name goes first, then a folder that is there, as in the loader."""
        if self.recorded_kind:
            return self.recorded_kind
        if self.name in registry.table("backbones"):
            return "registered"
        is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", self.name) and not hub.is_path(self.name)
        return "hub" if is_id else "folder"

    def record(self) -> dict[str, Any]:
        """What ``config.json`` holds of it: a folder by its absolute path, which means the same from everywhere."""
        folder = self.kind == "folder"
        name = str(Path(self.name).expanduser().absolute()) if folder else self.name
        return records.document(RunConfig(backbone=name, backbone_kind=self.kind))

    def folder(self, *, offline: bool = False) -> Path:
        """The pipeline's folder; a hub id's is downloaded unless ``offline``. BenchError says what to do."""
        source = registry.load("backbones", self.name).source if self.kind == "registered" else self.name
        return hub.resolve(source, revision=self.revision, offline=offline)

    def folder_if_here(self) -> Path | None:
        """The pipeline's folder if it is on this machine."""
        try:
            return self.folder(offline=True)
        except BenchError:
            return None

    def refusal(self, fingerprint: str, where: object) -> str | None:
        """Why weights at ``where`` cannot stand for those that the run used; None where the fingerprint is theirs."""
        if self.hash in (None, fingerprint):
            return None
        return (
            f"{where} is not the backbone that was trained (its files' hash is not {self.hash[:12]}…); give the right "
            "folder with --backbone"
        )


def read_source(run: Path) -> Source:
    """The backbone as ``config.json`` of a run folder names it, else as ``experiment.json`` does."""
    path = run / "config.json"
    experiment = records.read_record(ExperimentRecord, run / "experiment.json")
    config = records.read_record(RunConfig, path) if path.exists() else RunConfig()
    name, kind = config.backbone or experiment.backbone, config.backbone_kind
    if not name:
        raise BenchError(f"{run} does not say which backbone it started from; give its folder with --backbone")
    if kind is None:  # of 0.4.0 and before, which recorded the commit of a hub's snapshot alone
        local = "backbone_commit" in experiment.model_fields_set and experiment.backbone_commit is None
        if local and name not in registry.table("backbones"):
            kind, name = "folder", str(Path(name).expanduser().absolute())
    return Source(name, config.revision, kind, experiment.backbone_hash or None)
