"""The embedded experiment, shortened, leaves the same records however it is launched."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from launching import slurm, wait_until
from PIL import Image

from bench import records
from bench.errors import BenchError
from bench.evaluate.config import EvaluationConfig
from bench.evaluate.rows import evaluate
from bench.experiment.config import ExperimentConfig
from bench.experiment.keys import job_keys
from bench.experiment.run import Outcome, Workspace
from bench.launch import launch
from bench.launch.processes import evaluate_in_processes
from bench.launch.settings import LaunchSettings
from bench.machine import locks
from bench.machine.progress import Progress
from data_curation.world.corpus import training_scene
from data_curation.world.render import render
from data_curation.world.scene import TrainingPrompts

__all__ = ["slurm"]

COMPARED = ("train.jsonl", "meter.jsonl", "evaluations/*/samples.jsonl", "job.json")
FAST = {"poll_seconds": 0.5, "time_minutes": 30}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first scenes of the embedded corpus: all of them take minutes to encode."""
    folder, prompts = tmp_path_factory.mktemp("corpus"), TrainingPrompts()
    for index in range(48):
        scene = training_scene(1, index, prompts)
        Image.fromarray(render(scene)).save(folder / f"{index:02}.png")
        (folder / f"{index:02}.txt").write_text(scene.prompt.text)
    return folder


@pytest.fixture(scope="module")
def config(corpus: Path) -> ExperimentConfig:
    # Half a batch at a time, so that one process adds up the gradients in the order in which two do.
    return ExperimentConfig(
        name="short", methods=("sft",), subsets=("all",), seeds=(0, 1), corpus=str(corpus), suite="smoke",
        budget="steps=2", evaluations=1, micro_batch=16,
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums come out the same only where they are split among as many threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


def run(kind: str, config: ExperimentConfig, folder: Path, **settings: object) -> Outcome:
    workspace = Workspace(folder / "cache", folder / "runs")
    outcome = launch(kind, config, workspace, LaunchSettings(**settings), Progress(quiet=True))
    assert outcome is not None
    return outcome


def left(folder: Path, config: ExperimentConfig) -> dict[str, bytes]:
    """The records of the base and of each job."""
    jobs = [records.BASE, *(job.name for job in job_keys(config))]
    found = {path for job in jobs for name in COMPARED for path in (folder / job).glob(name)}
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


@pytest.fixture(scope="module")
def local(config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    outcome = run("local", config, tmp_path_factory.mktemp("local"))
    assert outcome.failed == {}
    found = left(outcome.folder, config)
    assert len(found) == 2 + 4 + 4
    return found


def test_two_processes_leave_the_records_of_one(config: ExperimentConfig, local: dict[str, bytes], tmp_path: Path):
    outcome = run("accelerate", config, tmp_path, processes=2)
    assert outcome.failed == {}
    assert left(outcome.folder, config) == local


def test_the_local_cluster_leaves_the_records_of_one_process(
    config: ExperimentConfig, local: dict[str, bytes], tmp_path: Path
):
    outcome = run("slurm", config, tmp_path, cluster="local", **FAST)
    assert outcome.failed == {}
    assert left(outcome.folder, config) == local


def test_slurm_with_two_processes_a_job_leaves_the_records_of_one(
    config: ExperimentConfig, local: dict[str, bytes], tmp_path: Path, slurm: Path
):
    outcome = run("slurm", config, tmp_path, processes=2, **FAST)
    assert outcome.failed == {}
    assert left(outcome.folder, config) == local


def test_two_processes_evaluate_as_one(tmp_path: Path):
    """Batches of two, so that both have some to draw and to score; a folder that is no model stops neither early."""
    asked = EvaluationConfig(what=("tiny-sd3", str(tmp_path / "empty")), suite="smoke", evaluation_batch=2)
    (tmp_path / "empty").mkdir()
    one, two = (Workspace(tmp_path / "cache", tmp_path / name) for name in ("one", "two"))
    alone = evaluate(asked, one, Progress(quiet=True))
    assert "holds no pipeline" in alone.failed[str(tmp_path / "empty")]
    with pytest.raises(BenchError, match="holds no pipeline"):
        evaluate_in_processes(asked, two, LaunchSettings(processes=2), Progress(quiet=True))
    again = asked.model_copy(update={"what": ("tiny-sd3",)})
    assert evaluate_in_processes(again, two, LaunchSettings(processes=2), Progress(quiet=True)).failed == {}
    files = (path.relative_to(one.runs) for path in alone.folder.rglob("*") if path.is_file())
    found = sorted(path for path in files if locks.FOLDER not in path.parts)
    assert len(found) == 5 + 8  # records and images
    for path in found:
        assert (two.runs / path).read_bytes() == (one.runs / path).read_bytes(), path


def worker_of_rank(rank: int, runs: Path) -> int:
    """Process id of a running worker."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            started = (folder / "cmdline").read_bytes().split(b"\0")
            told = (folder / "environ").read_bytes().split(b"\0")
            if {b"bench.worker", str(runs).encode()} <= set(started) and f"RANK={rank}".encode() in told:
                return int(folder.name)
    raise AssertionError(f"no worker has rank {rank}")


def test_a_killed_rank_marks_the_job_and_the_same_command_resumes_it(config: ExperimentConfig, tmp_path: Path):
    config = config.model_copy(update={"seeds": (0,), "budget": "steps=8"})
    [job] = [job.name for job in job_keys(config)]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = left(run("local", config, whole).folder, config)
    shutil.copytree(whole / "cache", broken / "cache")
    log = broken / "runs" / config.run_name / job / "train.jsonl"

    def after_a_step(act: Callable[[], None]) -> threading.Thread:
        def wait() -> None:
            wait_until(lambda: log.exists() and log.stat().st_size > 0, seconds=300)
            act()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    killer = after_a_step(lambda: os.kill(worker_of_rank(1, broken / "runs"), signal.SIGKILL))
    outcome = run("accelerate", config, broken, processes=2)
    killer.join()
    assert list(outcome.failed) == [job] and outcome.failed[job].startswith("rank 1 died (SIGKILL")
    log.unlink()

    stopper = after_a_step(lambda: os.kill(worker_of_rank(1, broken / "runs"), signal.SIGUSR1))
    with pytest.raises(KeyboardInterrupt):
        run("accelerate", config, broken, processes=2)
    stopper.join()
    assert records.read_json(log.parent / "status.json")["status"] == "interrupted"
    assert 0 < len(log.read_text().splitlines()) < 8

    assert run("local", config, broken).failed == {}
    assert left(outcome.folder, config) == expected
