"""A training that was killed computes what one that was not computes; the state of another training is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from killed_training import killed_after

from bench.backbone.pretrain import training
from bench.backbone.pretrain.training import Schedule, initial_weights, train
from bench.errors import BenchError
from bench.records import saved

TARGET = torch.tensor([[1.0, -2.0, 0.5]])


def fit(state: Path, *, steps: int = 6, lr: float = 0.1, seed: int = 0, words: str = "a") -> tuple[torch.Tensor, Any]:
    with initial_weights(seed, "line"):
        model = torch.nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())

    def loss_of(rng: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        x = torch.randn(4, 3, generator=rng)
        return (model(x) - x @ TARGET.T).pow(2).mean(), {"first": float(x[0, 0])}

    schedule = Schedule(steps, lr, warm_up=2, decay_share=0.5)
    options: dict[str, Any] = dict(stage="line", seed=seed, identity={"words": words}, ema=0.9)
    trained, log = train(model, optimizer, loss_of, schedule, state, **options)
    return trained.weight.detach().clone(), [{k: v for k, v in row.items() if k != "seconds"} for row in log]


def test_the_learning_rate_warms_up_stays_and_falls_to_zero() -> None:
    schedule = Schedule(steps=100, lr=2.0, warm_up=10, decay_share=0.5)
    rates = [schedule.at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[4] == pytest.approx(1.0)
    assert rates[9:51] == [2.0] * 42
    assert rates[75] == pytest.approx(1.0) and rates[99] == pytest.approx(0.04) and rates[100] == 0.0


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole.pt")
    with killed_after(3):
        fit(tmp_path / "cut.pt")
    cut = fit(tmp_path / "cut.pt")
    assert torch.equal(whole[0], cut[0]) and whole[1] == cut[1]
    assert whole[1][-1]["step"] == 6


def test_a_state_is_saved_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(saved, "save", lambda state, path: steps.append(state["step"]))
    seconds = iter(range(0, 10_000, 50))
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(seconds)))  # 50 seconds a step
    fit(tmp_path / "state.pt", steps=9)
    assert training.SAVE_EVERY == 180 and steps == [4, 8, 9]


def test_a_training_that_is_over_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fit(tmp_path / "state.pt")
    monkeypatch.setattr(saved, "save", lambda *_: pytest.fail("saved again"))
    again = fit(tmp_path / "state.pt")
    assert torch.equal(first[0], again[0]) and first[1] == again[1]


@pytest.mark.parametrize("changed", [{"steps": 7}, {"lr": 0.2}, {"seed": 1}, {"words": "b"}])
def test_a_state_of_another_training_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    fit(tmp_path / "state.pt")
    with pytest.raises(BenchError, match=rf"state.pt is of a training with another {next(iter(changed))}; delete it"):
        fit(tmp_path / "state.pt", **changed)


def test_initial_weights_come_from_the_seed_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    drawn = []
    for seed, stage in ((0, "a"), (0, "a"), (1, "a"), (0, "b")):
        with initial_weights(seed, stage):
            drawn.append(torch.nn.Linear(2, 2).weight.detach())
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[3])
