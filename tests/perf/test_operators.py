"""The counter of operators counts what a device would do, and a step of each method can be counted and timed."""

from __future__ import annotations

import time
from argparse import Namespace
from itertools import count

import pytest
import torch
from fakes import World
from operators import IMAGES, METHODS, Operators, count_step, rms_norm
from utilisation import measure


def test_views_allocations_and_integers_are_no_operators_of_a_device() -> None:
    values, index = torch.arange(6.0), torch.arange(3)
    with Operators() as operators:
        grid = values.view(2, 3).transpose(0, 1)
        torch.empty(4)
        more = index + 1
        grid[more - 1] * 2
    assert operators.counted.total() == 2 and operators.waits == operators.casts == 0
    assert operators.names == {"aten::index": 1, "aten::mul": 1}


def test_casts_and_waits_are_told_apart() -> None:
    values = torch.arange(6.0)
    with Operators() as operators:
        with operators.part("one"):
            values.bfloat16()
        with operators.part("two"):
            float(values.sum())
            torch.nonzero(values)
            values[values > 2]
    assert operators.casts == 1 and operators.counted["one"] == 1
    assert operators.waits == 3


def test_the_stand_in_for_cudas_norm_is_torchs_and_two_operators() -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 3, 8, generator=draw, requires_grad=True), torch.rand(8, generator=draw).requires_grad_()
    torch.rms_norm(x, (8,), weight, 1e-6).pow(2).sum().backward()
    expected = x.grad.clone(), weight.grad.clone()
    x.grad = weight.grad = None
    with Operators() as operators:
        rms_norm(x, weight, 1e-6).pow(2).sum().backward()
    torch.testing.assert_close((x.grad, weight.grad), expected)
    assert operators.names["perf::rms_norm"] == operators.names["perf::rms_norm_backward"] == 1


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_counted_by_its_parts(world: World, name: str) -> None:
    operators, spent = count_step(name, world.backbone, micro_batch=4, dtype=torch.float32)
    assert {"forward", "backward", "optimizer", "around"} == set(operators.counted)
    assert spent["steps"] == 1 and spent["updates"] >= 1
    assert operators.names["aten::_fused_adamw_"] == spent["updates"]
    if name != "flow_grpo":  # which reads numbers of its epoch too
        assert operators.waits <= 4 * spent["updates"]


def test_every_method_and_an_evaluation_are_held_against_the_matrix_rate_by_the_same_clock(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "process_time", count().__next__)  # a CPU second from one look at it to the next
    given = Namespace(dtype="float32", micro_batch=4, compile=False, repeats=1, cpu_time=True)
    figures = {figure.what: figure.value for figure in measure(world.backbone, given, torch.device("cpu"), size=64)}
    rate = figures["matrix rate, float32"]
    assert rate == pytest.approx(2 * 64**3 / 1e9)
    for name in (*METHODS, "evaluation"):
        reached = figures[f"{name}: reached"]
        assert figures[f"{name}: share of the matrix rate"] == pytest.approx(100 * reached / rate)
        assert reached > 0 and figures[f"{name}: {IMAGES} images"] == 1
    _, spent = count_step("sft", world.backbone, micro_batch=4, dtype=torch.float32)
    assert figures["sft: reached"] == pytest.approx(spent["flops"] / 1e9)
