"""What can change a number is held to a version, and every record names it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from bench.machine.versions import PACKAGES, versions

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = {canonicalize_name(one.name): one for one in map(Requirement, PROJECT["dependencies"])}
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
HELD = {
    canonicalize_name(one.name): one
    for one in map(Requirement, (line.removesuffix(" \\") for line in LINES if line[:1].isalpha()))
}
MINOR = ("diffusers", "open-clip-torch", "peft", "tokenizers", "transformers")
"""Packages of which another minor version has changed numbers, or may: levels, ids, starts, preparation."""


def exact(name: str) -> Version:
    """The version that constraints.txt holds a package to."""
    (one,) = HELD[name].specifier
    assert one.operator == "=="
    return Version(one.version)


@pytest.mark.parametrize("name", MINOR)
def test_another_minor_version_is_not_installed_beside_the_numbers(name: str) -> None:
    allowed, held = REQUIRED[name].specifier, exact(name)
    assert held in allowed and Version(f"{held.major}.{held.minor}.99") in allowed
    for other in (f"{held.major}.{held.minor + 1}.0", f"{held.major}.{held.minor - 1}.9", f"{held.major + 1}.0"):
        assert Version(other) not in allowed, other


def test_another_major_version_of_pillow_is_not_either() -> None:
    held = exact("pillow")
    assert held in REQUIRED["pillow"].specifier and Version(f"{held.major + 1}.0") not in REQUIRED["pillow"].specifier


def test_every_version_that_is_installed_for_development_is_allowed() -> None:
    assert [name for name, one in REQUIRED.items() if exact(name) not in one.specifier] == []


def test_records_name_what_is_held_to_a_version() -> None:
    named = {canonicalize_name(name) for name in PACKAGES}
    assert {*MINOR, "pillow", "rapidocr-onnxruntime", "torch", "torchvision", "numpy"} <= named
    assert [name for name in PACKAGES if versions()[name] == "missing"] == []
