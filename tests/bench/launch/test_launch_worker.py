"""A worker says by its exit code how it ended, leaves one line for its launcher, and hears what a cluster says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from launching import wait_until

from bench import worker
from bench.errors import BenchError, JobFailure
from bench.evaluate.config import EvaluationConfig
from bench.experiment import run as experiment_run
from bench.experiment.config import ExperimentConfig
from bench.experiment.loop import OutOfMemory
from bench.experiment.run import Outcome, Workspace
from bench.launch import ends
from bench.launch.command import WORKER, worker_command, write_config
from bench.launch.queues import LocalQueue
from bench.launch.rank import Rank
from bench.launch.settings import LaunchSettings
from bench.launch.signals import STOP_SIGNALS, stop_signals
from bench.machine import engine
from bench.records import DiskFull


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a worker whose experiment is a function."""
    monkeypatch.setenv("BENCH_CACHE", "")  # put back afterwards
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    here = SimpleNamespace(is_main=True, close=lambda: None)
    monkeypatch.setattr(engine.Engine, "from_environment", lambda **arguments: here)
    config = ExperimentConfig(name="x", methods=("sft",), dtype="float32")
    workspace = Workspace(tmp_path / "cache", tmp_path / "runs")

    def run(function, *only: str) -> Result:
        monkeypatch.setattr(experiment_run, "run_experiment", function)
        path = write_config(workspace.runs / "x", config)
        command = worker_command(path, workspace, only, quiet=True)
        return CliRunner().invoke(worker.main, command[command.index(str(path)) :], catch_exceptions=False)

    run.config, run.workspace = config, workspace  # type: ignore[attr-defined]
    usual = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield run
    for number, handler in usual.items():
        signal.signal(number, handler)


def test_it_runs_the_configuration_and_the_jobs_that_it_was_given(work) -> None:
    calls = []

    def function(config, workspace, progress, *, engine, only):
        calls.append((config, workspace, engine.is_main, only))
        return Outcome(workspace.runs, {})

    assert work(function).exit_code == ends.FINE
    assert work(function, "base").exit_code == ends.FINE
    assert calls == [(work.config, work.workspace, True, None), (work.config, work.workspace, True, ("base",))]
    assert os.environ["BENCH_CACHE"] == str(work.workspace.cache)


def test_a_failed_job_has_its_own_exit_code(work) -> None:
    assert work(lambda *a, **k: Outcome(Path(), {"sft": "reason"})).exit_code == ends.SOME_FAILED


def broken(error: BaseException):
    def function(*arguments: object, **options: object) -> Outcome:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (BenchError("no such model;\nlog in"), ends.BROKEN, "no such model; log in"),
        (JobFailure("loss is NaN"), ends.BROKEN, "loss is NaN"),
        (OutOfMemory("out of memory; --micro-batch lowers it"), ends.BROKEN, "out of memory; --micro-batch lowers it"),
        (DiskFull("the disk is full"), ends.DISK_FULL, "the disk is full"),
        (
            OSError(28, "No space", "a.npy"),
            ends.DISK_FULL,
            "the disk is full (a.npy); free some space and run the same command",
        ),
        (ValueError("oh no"), ends.BROKEN, "rank 3: ValueError: oh no (RUNS/x/launch/rank3-base-traceback.txt)"),
    ],
)
def test_an_error_is_one_line_for_the_launcher_or_on_stderr(
    work, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, code: int, line: str
) -> None:
    monkeypatch.setenv("RANK", "3")
    line = line.replace("RUNS", str(work.workspace.runs))
    shown = work(broken(error), "base")
    assert (shown.exit_code, shown.stderr.splitlines()[-1]) == (code, f"bench: {line}")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    told = work(broken(error), "base")
    assert told.exit_code == code and line not in told.stderr.splitlines()
    assert json.loads((tmp_path / "error.json").read_text())["message"] == line
    left = work.workspace.runs / "x" / "launch" / "rank3-base-traceback.txt"
    assert left.exists() == (type(error) is ValueError)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_stop_signal_outside_a_job_ends_the_worker_as_interrupted(work, number: int) -> None:
    assert work(lambda *a, **k: os.kill(os.getpid(), number)).exit_code == ends.INTERRUPTED
    assert signal.getsignal(number) == signal.SIG_IGN  # the launcher may repeat itself while the process ends


def test_a_running_job_hears_of_it_once_as_of_ctrl_c() -> None:
    heard: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with stop_signals():
            for number in (*STOP_SIGNALS, *STOP_SIGNALS):
                os.kill(os.getpid(), number)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert heard == [signal.SIGINT]


def test_a_process_that_ignores_ctrl_c_still_hears_a_cluster() -> None:
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), stop_signals():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, usual)


def test_a_configuration_that_waits_in_a_queue_is_not_changed_by_a_later_command(tmp_path: Path) -> None:
    one, two = (write_config(tmp_path, ExperimentConfig(methods=("sft",), seeds=(seed,))) for seed in (0, 1))
    assert one != two and one == write_config(tmp_path, ExperimentConfig(methods=("sft",), seeds=(0,)))


def test_an_evaluation_that_could_not_be_had_says_so_to_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", "")  # put back afterwards
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    config = EvaluationConfig(what=("tiny-sd33",), limit=1, dtype="float32", offline=True)
    workspace = Workspace(tmp_path / "cache", tmp_path / "runs")
    path = write_config(workspace.runs / config.run_name, config)
    command = worker_command(path, workspace, quiet=True)
    done = CliRunner().invoke(worker.main, command[command.index(str(path)) :], catch_exceptions=False)
    assert done.exit_code == ends.BROKEN
    line = json.loads((tmp_path / "error.json").read_text())["message"]
    assert line.startswith("tiny-sd33: unknown backbone") and "did you mean 'tiny-sd3'?" in line


@pytest.mark.parametrize("kind", ["the worker", "submitit's local cluster"])
def test_what_a_launcher_starts_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name in ("random", "click", "submitit"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w'); raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    match kind:
        case "the worker":
            done = subprocess.run([*WORKER, "--help"], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert "as one process of a group" in done.stdout
        case _:
            queue = LocalQueue(tmp_path / "logs", LaunchSettings(cluster="local"))
            [job] = queue.submit([Rank((sys.executable, "-c", "import random"), tmp_path)], "x")
            wait_until(lambda: queue.states([job])[job] in ("COMPLETED", "FAILED"))
            assert queue.states([job])[job] == "COMPLETED"
    assert not (tmp_path / "was-run").exists()
