"""Fake runs for the report; ``fake_run`` says what is in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_run import FakeRun


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., FakeRun]:
    """``make_run(name, **sizes)``: an empty fake run with its base."""

    def make(name: str = "demo", **sizes: int) -> FakeRun:
        run = FakeRun(tmp_path / name, **sizes)
        run.base()
        return run

    return make


@pytest.fixture
def run(make_run: Callable[..., FakeRun]) -> FakeRun:
    """Three methods on one subset: a clear winner, a middling one, and one that trained on a metric it now tops."""
    fake = make_run()
    fake.job("alpha", 0.05)
    fake.job("beta_long", 0.15)
    fake.job("gamma", 0.30, reward="style", share=0.95)
    return fake


@pytest.fixture
def ranked(make_run: Callable[..., FakeRun]) -> FakeRun:
    """As ``run``, but with two seeds of each method, and all of them at equal compute: rows that are ranked."""
    fake = make_run("ranked")
    for seed in (0, 1):
        fake.job("alpha", 0.05, seed=seed)
        fake.job("beta_long", 0.15, seed=seed)
        fake.job("gamma", 0.30, seed=seed, reward="style")
    return fake
