"""The optimizer's step and the average of the weights."""

from __future__ import annotations

import math

import pytest
import torch
from dispatched import Dispatched

from bench.errors import BenchError
from bench.machine.engine import Engine
from bench.method import AdamWConfig
from bench.training.learner import Learner

ADAMW = dict(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0)


def share_of_the_start(updates: int, **average: object) -> float:
    """What is left of the start in the average, when the weights go from 1 to 0 before the first update."""
    weight = torch.nn.Parameter(torch.ones(1))
    learner = Learner(Engine(), [weight], **ADAMW, **average)
    learner.fill([torch.zeros(1)])
    for _ in range(updates):
        weight.grad = torch.zeros(1)  # AdamW without decay leaves a weight without gradient as it is
        learner.step()
    assert weight.item() == 0
    with learner.averaged():
        return weight.item()


def test_the_average_warms_up_by_default():
    """The product of (1 + n) / (10 + n) over n = 1 ... 300 is 10! 301! / 310!; no factor reaches .995."""
    left = math.factorial(10) * math.factorial(301) / math.factorial(310)
    assert left == pytest.approx(1.5e-16, rel=0.1)
    assert share_of_the_start(300, ema_decay=0.995) == pytest.approx(left, rel=1e-3)


def test_an_average_without_warm_up_has_its_decay_from_the_first_update():
    assert share_of_the_start(1, ema_decay=0.995, ema_warmup=False) == pytest.approx(0.995)
    assert share_of_the_start(300, ema_decay=0.995, ema_warmup=False) == pytest.approx(0.2223, rel=1e-3)
    assert share_of_the_start(300, ema_decay=0.995, ema_every=100, ema_warmup=False) == pytest.approx(0.995**3)


def test_the_warm_up_is_a_setting_that_every_method_of_adamw_has():
    assert AdamWConfig().adamw()["ema_warmup"] is True
    assert AdamWConfig(ema_warmup=False).adamw()["ema_warmup"] is False


def a_learner(device: str = "cpu", **options: object) -> Learner:
    parameters = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
    return Learner(Engine(device=device), parameters, **ADAMW, **options)


@pytest.mark.parametrize(("device", "fused"), [("cpu", None), ("cuda", True)])
def test_a_gpu_takes_the_optimizer_of_one_kernel(device, fused):
    assert a_learner(device).optimizer.defaults["fused"] is fused


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_checkpoint_of_another_device_does_not_bring_its_kernel_along(device):
    here, there = a_learner(device), a_learner({"cpu": "cuda", "cuda": "cpu"}[device])
    for parameter in there.parameters:
        parameter.grad = torch.ones_like(parameter)
    there.step()
    here.load_state_dict(there.state_dict())
    assert [group["fused"] for group in here.optimizer.param_groups] == [{"cpu": None, "cuda": True}[device]]
    assert torch.equal(here.parameters[0], there.parameters[0])


def test_states_of_8_bits_are_refused_for_weights_that_are_spread_over_processes():
    class Spread(torch.nn.Parameter):
        def full_tensor(self) -> torch.Tensor:
            return self.data

    with pytest.raises(BenchError, match=r"adam_8bit cannot train weights that fsdp spreads .* --sharding ddp"):
        Learner(Engine(), [Spread(torch.ones(2))], adam_8bit=True, **ADAMW)


def test_the_average_of_many_tensors_is_one_operator():
    learner = a_learner(ema_decay=0.9)
    learner.fill([torch.zeros_like(p) for p in learner.parameters])
    for parameter in learner.parameters:
        parameter.grad = torch.zeros_like(parameter)
    with Dispatched() as dispatched:
        learner.step()
    assert dispatched.names.count("aten::_foreach_lerp_") == 1
