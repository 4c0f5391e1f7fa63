"""Fixtures that many tests share. ``fakes`` holds the small world itself."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))  # test files import ``fakes`` from there


def pytest_configure() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored, and tests press it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random StableDiffusion3Pipeline for 16 px pictures."""
    import fakes

    folder = tmp_path_factory.mktemp("pipelines") / "tiny"
    fakes.make_pipeline(folder)
    return folder


@pytest.fixture(scope="session")
def world(tiny_pipeline: Path) -> object:
    """``fakes.World`` on the tiny pipeline: job(), data, backbone, evaluator."""
    import fakes

    return fakes.World(tiny_pipeline)
