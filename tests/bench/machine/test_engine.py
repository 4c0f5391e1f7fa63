"""Processes of a group wait for each other as long as it takes, and a device has its number."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes
import numpy as np
import pytest
import torch

from bench.machine import engine as engines
from bench.machine.engine import Engine
from bench.suite import Prompt
from bench.training.feed import Feed
from bench.training.reward import Reward

SCRIPT = Path(__file__).parents[2] / "support" / "waiting.py"


def two(case: str) -> list[tuple[int, list[str]]]:
    """Exit code and printed lines of each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), case],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=300)[0].splitlines() for rank in ranks]
    return [(rank.returncode, lines) for rank, lines in zip(ranks, said, strict=True)]


def test_the_wait_for_long_work_of_rank_0_is_no_timeout_of_the_group() -> None:
    said = ["done", "told by 0", "[0, 1]"]
    assert two("long") == [(0, said), (0, said)]


def test_a_rank_that_dies_is_noticed_by_those_that_wait_for_it() -> None:
    assert two("dead") == [(0, ["noticed"]), (-signal.SIGKILL, [])]


class FakeAccelerator:
    """What accelerate finds on a machine with one GPU, in a lone process."""

    device, process_index, num_processes = torch.device("cuda"), 0, 1

    def __init__(self, **options: Any) -> None:
        type(self).options = options


@pytest.fixture
def lone_gpu(monkeypatch: pytest.MonkeyPatch) -> type[FakeAccelerator]:
    monkeypatch.setattr("accelerate.Accelerator", FakeAccelerator)
    monkeypatch.setattr(engines, "check_dtype", lambda dtype, device: None)
    return FakeAccelerator


def test_a_group_is_made_with_hours(lone_gpu: type[FakeAccelerator]) -> None:
    from accelerate import InitProcessGroupKwargs

    Engine.from_environment(dtype="float32")
    [group] = [made for made in lone_gpu.options["kwargs_handlers"] if isinstance(made, InitProcessGroupKwargs)]
    assert group.timeout >= timedelta(hours=2)


def test_the_environment_of_accelerate_chooses_no_precision_and_compiles_nothing(
    lone_gpu: type[FakeAccelerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    Engine.from_environment(dtype="float32")
    assert (lone_gpu.options["mixed_precision"], lone_gpu.options["dynamo_backend"]) == ("no", "no")


def test_a_lone_gpu_has_a_number(lone_gpu: type[FakeAccelerator]) -> None:
    assert Engine.from_environment(dtype="float32").device == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("given", "device"),
    [("cuda", "cuda:0"), (torch.device("cuda"), "cuda:0"), ("cuda:3", "cuda:3"), ("cpu", "cpu"), ("meta", "meta")],
)
def test_an_engine_numbers_a_gpu_that_has_no_number(given: torch.device | str, device: str) -> None:
    assert str(Engine(device=given).device) == device


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """(GPU, thread) of every choice of a device; ``torch.cuda.set_device`` makes its own checks before."""
    made: list[tuple[int, str]] = []
    monkeypatch.setattr(
        torch._C, "_cuda_setDevice", lambda index: made.append((index, threading.current_thread().name)), raising=False
    )
    return made


class Half:
    """A metric that gives every picture a half."""

    name, flops_per_image = "half", 0

    def score(self, images: Any, prompts: Any) -> list[float]:
        return [0.5] * len(images)


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:1", 1)])
def test_a_reward_is_scored_on_a_thread_of_the_jobs_gpu(chosen, monkeypatch, device: str, index: int) -> None:
    engine = Engine(device=device)
    reward = Reward(Half(), engine)  # type: ignore[arg-type]
    wait = reward.later(np.zeros((2, 4, 4, 3), np.uint8), [Prompt("0", "x")] * 2)
    engine.device = torch.device("cpu")  # where the scores go, since there is no GPU here
    assert wait().tolist() == [0.5, 0.5]
    reward.close()
    assert [place for place, _ in chosen] == [index]


def test_what_reads_ahead_is_on_the_jobs_gpu(world: fakes.World, chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda values: values)  # which a driver does, and there is none
    feed = Feed(world.data, 0, Engine(device="cuda:1"))
    latents, _ = feed.portions("pairs", 2, 2)[0].read()
    assert len(latents) == 2
    feed.close()
    assert [place for place, _ in chosen] == [1]


def test_the_clock_of_a_step_is_read_when_the_device_is_done(
    world: fakes.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.experiment import loop

    now, seconds = [0.0], 3.0
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def wait(engine: Engine) -> None:  # kernels that the step has started go on for three seconds
        now[0] += seconds

    monkeypatch.setattr(Engine, "settle", wait)
    run = fakes.job_run(world, tmp_path, "sft", "steps=2", (1.0,))
    run.run()
    assert run.session.job.meter.seconds == 2 * seconds


def test_a_gpu_is_waited_for_and_a_cpu_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    Engine(device="cpu").settle()
    Engine(device="cuda:1").settle()
    assert waited == [torch.device("cuda", 1)]
