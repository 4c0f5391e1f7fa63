"""How a job computes changes rounding and nothing else: precision, checkpointing, compilation, trackers."""

from __future__ import annotations

import fakes
import pytest
import torch
from fakes import advance, same, small, weights

from bench.errors import BenchError
from bench.experiment.trackers import tracking
from bench.machine.engine import Engine, spread, whole


def trained(world, name: str, **compute):
    job, method = world.job(**compute), small(name)
    method.setup(job)
    return job, advance(job, method, 2)


@pytest.mark.parametrize("name", ["sft", "soar", "flow_grpo"])
def test_gradient_checkpointing_changes_nothing_that_counts(world, name):
    (plain, logs), (saving, same_logs) = trained(world, name), trained(world, name, gradient_checkpointing=True)
    assert saving.policy.transformer.gradient_checkpointing
    assert same_logs == logs and same(weights(plain), weights(saving))
    assert plain.meter.counts() == saving.meter.counts()


def test_every_block_is_compiled_and_still_trains(world, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    job, logs = trained(world, "sft", compile=True)
    assert compiled == list(job.policy.transformer.transformer_blocks) and len(logs) == 2


def test_eight_bit_adam_needs_its_package(world, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(BenchError, match="pip install bitsandbytes"):
        trained(world, "sft", adam_8bit=True)


@pytest.fixture(scope="module")
def half(tiny_pipeline):
    return fakes.World(tiny_pipeline, Engine(dtype=torch.bfloat16))


def test_bfloat16_computes_and_float32_learns(world, half):
    (_, logs), (coarse, half_logs) = trained(world, "sft"), trained(half, "sft")
    assert all(p.dtype == torch.float32 and p.grad is None for p in coarse.parameters)
    state = fakes.learner(coarse).optimizer.state[coarse.parameters[0]]
    assert state["exp_avg"].dtype == torch.float32
    assert half_logs[0]["loss"] != logs[0]["loss"]
    assert half_logs[0]["loss"] == pytest.approx(logs[0]["loss"], rel=0.02)
    velocity = coarse.policy.velocity(torch.zeros(1, 4, 4, 4), 0.5, half.text(1))
    assert velocity.dtype == torch.float32


def test_an_adapter_learns_in_float32_on_a_frozen_bfloat16_model(half):
    job, logs = trained(half, "flow_grpo")
    frozen = {p.dtype for p in job.policy.transformer.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16} and {p.dtype for p in job.parameters} == {torch.float32}
    assert logs[0]["ratio"] == pytest.approx(1.0, abs=0.05)


def test_a_state_put_together_and_spread_again_is_the_same():
    state = {"a": [torch.ones(2), 3], "b": {"c": (torch.zeros(1), None)}}
    again = spread(whole(state), state)
    assert (
        again["a"][1] == 3
        and torch.equal(again["a"][0], state["a"][0])
        and torch.equal(again["b"]["c"][0], torch.zeros(1))
    )
    assert whole(state, keep=False)["a"][0] is None


def test_tensorboard_gets_every_step(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracking(("tensorboard",), tmp_path / "job") as track:
        for step in (1, 2, 3):
            track(step, {"loss": step / 2})
    events = EventAccumulator(str(tmp_path / "tensorboard" / "job"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 1.0), (3, 1.5)]


def test_a_tracker_that_is_not_installed_says_so(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(BenchError, match="pip install wandb, or --trackers none"),
        tracking(("wandb",), tmp_path / "job"),
    ):
        pass


def test_without_trackers_nothing_is_written(tmp_path):
    with tracking((), tmp_path / "job") as track:
        track(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []
