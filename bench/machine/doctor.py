"""What this machine has and lacks."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from bench import registry


@dataclass(frozen=True)
class Diagnosis:
    """One line of `bench doctor`."""

    what: str
    ok: bool
    detail: str
    optional: bool = False


INSTALL = "pip install --require-hashes --no-deps -r constraints.txt && pip install --no-deps --no-build-isolation -e ."
OPTIONAL = {
    "bitsandbytes": "for --adam-8bit: pip install bitsandbytes",
    "wandb": "for --trackers wandb: pip install wandb",
}
DISK = 0.3
"""GiB that the default run takes at most; 0.18 as measured (``perf/embedded.py``), and room to write the last file."""


def examine() -> list[Diagnosis]:
    """Look at packages, devices, the embedded weights, folders and disk."""
    diagnoses = [_package(requirement) for requirement in _required()]
    diagnoses += [_package(Requirement(name), hint) for name, hint in OPTIONAL.items()]
    if importlib.util.find_spec("torch"):
        diagnoses += _devices()
    diagnoses += [_folder(name) for name in ("methods", "benchmarks", "data_curation")]
    weights = Path(__file__).parents[1] / "backbone" / "tiny_sd3" / "transformer"
    diagnoses.append(
        Diagnosis("tiny-sd3", weights.exists(), "shipped weights found" if weights.exists() else "run `bench pretrain`")
    )
    free = shutil.disk_usage(".").free / 2**30
    diagnoses.append(Diagnosis("disk", free > DISK, f"{free:.1f} GiB free here; the default run needs {DISK}"))
    return diagnoses


def _required() -> list[Requirement]:
    """What the installed distribution says it needs, extras aside."""
    stated = map(Requirement, metadata.requires("flow-bench") or ())
    return [requirement for requirement in stated if requirement.marker is None]


def _package(requirement: Requirement, hint: str | None = None) -> Diagnosis:
    name = requirement.name
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Diagnosis(name, False, hint or INSTALL, hint is not None)
    if not requirement.specifier.contains(version, prereleases=True):
        return Diagnosis(name, False, f"{version}, but {requirement.specifier} is needed: {INSTALL}")
    return Diagnosis(name, True, version, hint is not None)


def _devices() -> list[Diagnosis]:
    import torch

    diagnoses = [Diagnosis("cpu", True, f"{os.cpu_count()} cores, {torch.get_num_threads()} threads; runs tiny-sd3")]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            memory = f"{properties.total_memory / 2**30:.0f} GiB"
            diagnoses.append(Diagnosis(f"cuda:{i}", True, f"{properties.name}, {memory}"))
    else:
        diagnoses.append(Diagnosis("cuda", False, "no GPU; tiny-sd3 needs none", optional=True))
    return diagnoses


def _folder(name: str) -> Diagnosis:
    if other := registry.shadow(name):
        return Diagnosis(name, False, f"another package of this name comes first, uninstall it: {other.parents[1]}")
    if (path := registry.find(name)) is None:
        return Diagnosis(name, False, f"this project's folder is not there: {INSTALL}")
    return Diagnosis(name, True, f"imports from {path.parents[1]}")
