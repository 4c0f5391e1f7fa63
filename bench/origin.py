"""Which pretrained pipeline a run started from, and where it lies now."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench import records, registry
from bench.backbone import hub
from bench.errors import BenchError
from bench.report.read import RunConfig, Study


@dataclass(frozen=True)
class Origin:
    """The backbone as the experiment named it: a registered name, a local folder or a hub id.

    ``revision`` is a hub id's, None for its main branch.
    """

    name: str
    revision: str | None = None

    @property
    def kind(self) -> Literal["registered", "folder", "hub"]:
        """A registered name goes first, then a folder that is there, as in the loader."""
        if self.name in registry.table("backbones"):
            return "registered"
        is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", self.name) and not self.name.startswith((".", "~"))
        return "hub" if is_id and not Path(self.name).is_dir() else "folder"

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


def read_origin(run: Path, study: Study) -> Origin:
    """The backbone as ``config.json`` of a run folder names it, else as ``experiment.json`` does."""
    path = run / "config.json"
    config = records.read_record(RunConfig, path) if path.exists() else RunConfig()
    return Origin(config.backbone or study.experiment.backbone, config.revision)
