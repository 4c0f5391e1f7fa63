"""Fixtures that many tests share. ``fakes`` holds the small world itself."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "support"))  # test files import ``fakes`` from there

SLOW = (
    "bench/backbone/pretrain",
    "bench/backbone/test_tiny_sd3.py",
    "bench/check",
    "bench/encoded/test_cache.py",
    "bench/evaluate",
    "bench/evaluation/test_evaluation_identity.py",
    "bench/evaluation/test_scoring.py",
    "bench/experiment/test_experiment_devices.py",
    "bench/experiment/test_experiment_preferences.py",
    "bench/experiment/test_held_out.py",
    "bench/experiment/test_runner.py",
    "bench/experiment/test_stages.py",
    "bench/export",
    "bench/launch/test_launch_cluster.py",
    "bench/launch/test_launch_end_to_end.py",
    "bench/launch/test_launch_processes.py",
    "bench/machine/test_engine.py",
    "bench/machine/test_locks.py",
    "bench/machine/test_precision.py",
    "bench/machine/test_ranks.py",
    "bench/plan",
    "bench/plugins",
    "bench/records/test_archive.py",
    "bench/rehearsal/test_rehearsals.py",
    "bench/report/page/test_in_a_browser.py",
    "bench/report/test_coverage.py",
    "bench/report/test_committed_reports.py",
    "bench/report/test_damaged_records.py",
    "bench/report/test_exposure.py",
    "bench/report/test_index.py",
    "bench/report/test_power.py",
    "bench/report/test_published.py",
    "bench/report/test_report_differences.py",
    "bench/report/test_report_evaluated.py",
    "bench/report/test_report_guidance.py",
    "bench/report/test_report_render.py",
    "bench/report/test_report_tables.py",
    "bench/report/test_watch.py",
    "bench/sampling/test_solvers.py",
    "bench/scaffold",
    "bench/tune",
    "benchmarks/test_geneval_metrics.py",
    "data_curation/test_curate.py",
    "data_curation/test_world.py",
    "methods/test_flow_grpo.py",
    "methods/test_methods.py",
    "perf",
    "test_end_to_end.py",
    "test_paper_experiments.py",
    "test_paper_suite.py",
)
"""Files and folders whose tests run whole experiments, start processes, draw reports, or load the shipped model. Each
takes more than five seconds of a core. `make quick` leaves them out; new tests of these kinds belong here."""


def pytest_configure() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored, and tests press it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def plugins_forgotten() -> Iterator[None]:
    """A method that a test adds by its path is unknown to the next test."""
    from bench import registry
    from bench.plugins import files

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "ADDED", {kind: dict(names) for kind, names in registry.ADDED.items()})
        patch.setattr(files, "FILES", dict(files.FILES))
        yield
    registry.table.cache_clear()
    registry.summary.cache_clear()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of ``SLOW``."""
    if gone := [name for name in SLOW if not (HERE / name).exists()]:
        raise pytest.UsageError(f"{gone[0]} is not in tests/; mend SLOW in tests/conftest.py")
    slow = tuple(HERE / name for name in SLOW)
    for item in items:
        if any(item.path.is_relative_to(place) for place in slow):
            item.add_marker("slow")


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
