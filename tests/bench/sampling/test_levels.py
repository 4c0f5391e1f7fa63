"""The lists of noise levels: diffusers' own to the bit, the clean one, who uses which, and what records say of it."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from bench import records
from bench.backbone.loader import Backbone
from bench.backbone.policy import Policy
from bench.errors import BenchError
from bench.evaluation import Conditions, PolicyPainter
from bench.experiment.session import Session
from bench.rng import torch_generator
from bench.sampling import levels
from bench.suite import Sampler

SIX = ["0x1.0p+0", "0x1.d8c05ap-1", "0x1.a349ecp-1", "0x1.562eeap-1", "0x1.ba9936p-2", "0x1.24924ap-7", "0x0.0p+0"]
"""Six steps with shift 3, as diffusers 0.42.1 makes them."""


@pytest.mark.parametrize("shift", [0.5, 1.0, 1.15, 2.0, 3.0, 5.0, 6.5, 12.0])
def test_the_list_of_diffusers_is_its_own_to_the_bit(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    for steps in (*range(1, 65), 100, 128, 250, 999, 1000):
        scheduler.set_timesteps(steps)
        assert np.array_equal(levels.sigmas(levels.DIFFUSERS, steps, shift), scheduler.sigmas.numpy()), steps


def test_the_list_of_diffusers_stays_when_diffusers_changes() -> None:
    assert levels.sigmas(levels.DIFFUSERS, 6, 3.0).tolist() == [float.fromhex(level) for level in SIX]


def test_diffusers_shifts_its_lower_end_twice() -> None:
    """The least of a table of 1000 is shift(1/1000) = 3/1002, and shift(3/1002) = 9/1008, whatever the steps."""
    for steps in (2, 6, 20, 40, 400):
        assert levels.sigmas(levels.DIFFUSERS, steps, 3.0)[-2] == pytest.approx(9 / 1008, rel=1e-6)


@pytest.mark.parametrize(
    ("steps", "shift", "expected"),
    [
        (1, 3.0, [1, 0]),
        (2, 3.0, [1, 3 / 4, 0]),
        (4, 3.0, [1, 9 / 10, 3 / 4, 1 / 2, 0]),
        (4, 1.0, [1, 3 / 4, 1 / 2, 1 / 4, 0]),
        (4, 2.0, [1, 6 / 7, 2 / 3, 2 / 5, 0]),
    ],
)
def test_the_shifted_list_is_uniform_time_shifted_once(steps: int, shift: float, expected: list[float]) -> None:
    found = levels.sigmas(levels.SHIFTED, steps, shift)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    assert levels.sigmas(levels.SHIFTED, 25, 3.0)[-2] == pytest.approx(1 / 9)  # LeapAlign's release


@pytest.mark.parametrize("name", levels.GRIDS)
def test_every_list_falls_from_1_to_0(name: str) -> None:
    for steps in (1, 2, 3, 20, 1000):
        found = levels.sigmas(name, steps, 3.0)
        assert len(found) == steps + 1 and found[0] == 1 and found[-1] == 0 and (np.diff(found) < 0).all()


def test_bad_input_is_one_line() -> None:
    with pytest.raises(BenchError, match=r"^unknown list of noise levels 'shiftd'; did you mean 'shifted'\?$"):
        levels.sigmas("shiftd", 3, 3.0)
    with pytest.raises(BenchError, match=r"unknown list of noise levels 'mine'; known: diffusers-0\.42, shifted$"):
        Sampler(steps=4, guidance_scale=1.0, resolution=64, levels="mine")
    with pytest.raises(BenchError, match="at least one step, and 0 are asked for"):
        levels.sigmas(levels.SHIFTED, 0, 3.0)


def test_a_suite_that_says_nothing_has_the_list_of_diffusers() -> None:
    assert asdict(Sampler(20, 4.5, 64))["levels"] == "diffusers-0.42"
    assert fakes.suite().describe({"brightness": fakes.Brightness()}).sampler.levels == "diffusers-0.42"


def test_a_policy_has_the_list_of_diffusers_unless_told_otherwise(world: fakes.World) -> None:
    policy = Policy(world.backbone.transformer(), world.backbone.scheduler(), world.null)
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    scheduler.set_timesteps(4)
    assert torch.equal(policy.sigmas(4), scheduler.sigmas)
    near = [1, 9 / 10, 3 / 4, 1 / 2, 0]
    assert policy.sigmas(4, levels.SHIFTED).tolist() == pytest.approx(near)
    other = Policy(world.backbone.transformer(), world.backbone.scheduler(), world.null, levels=levels.SHIFTED)
    assert other.sigmas(4).tolist() == pytest.approx(near)


def test_a_job_samples_at_its_suites_levels(world: fakes.World, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session.of(
        backbone=world.backbone, null=world.null, data=world.data, seed=0, engine=world.engine, levels=levels.SHIFTED
    )
    job = session.job
    visited: list[float] = []
    velocity = job.policy.velocity

    def spy(latents: Any, sigma: Any, text: Any) -> Any:
        visited.append(float(sigma))
        return velocity(latents, sigma, text)

    monkeypatch.setattr(job.policy, "velocity", spy)
    job.sample(torch.zeros(1, *job.latent_shape), world.text(1), steps=4, guidance_scale=1.0)
    assert visited == pytest.approx([1, 9 / 10, 3 / 4, 1 / 2])


def test_a_painter_draws_at_its_samplers_levels(world: fakes.World) -> None:
    suite = fakes.suite()
    policy = Policy(world.backbone.transformer(), world.backbone.scheduler(), world.null)
    conditions, prompts = Conditions(world.backbone, suite.texts()), suite.prompt_sets[0].prompts
    drawn = {}
    for name in levels.GRIDS:
        painter = PolicyPainter(policy, world.backbone, replace(suite.sampler, steps=3, levels=name), conditions)
        (drawn[name],) = painter.draw(prompts[:1], [5])
    noise = torch.randn(world.backbone.latent_shape, generator=torch_generator(5))[None]
    for name, picture in drawn.items():
        text = conditions[[prompts[0].text]]
        latents = policy.sample(noise, text, steps=3, guidance_scale=2.0, levels=name)
        assert (world.backbone.decode(latents)[0] == picture).all()
    assert (drawn[levels.DIFFUSERS] != drawn[levels.SHIFTED]).any()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_karras_sigmas", True),
        ("use_dynamic_shifting", True),
        ("shift_terminal", 0.02),
        ("num_train_timesteps", 500),
    ],
)
def test_a_scheduler_that_makes_another_list_is_refused(key: str, value: Any) -> None:
    FlowMatchEulerDiscreteScheduler(shift=3.0, **{key: value})  # one that diffusers knows
    with pytest.raises(BenchError, match=rf"^x\.json: {key} is {value!r}, and noise levels are known for .* alone"):
        levels.check_scheduler({"shift": 3.0, key: value}, "x.json")
    levels.check_scheduler(FlowMatchEulerDiscreteScheduler(shift=6.0).config, "x.json")


def test_a_pipeline_with_such_a_scheduler_is_refused_by_its_file(world: fakes.World, tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(world.backbone.folder, folder)
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(path.read_text().replace('"use_karras_sigmas": false', '"use_karras_sigmas": true'))
    with pytest.raises(BenchError, match=r"scheduler/scheduler_config\.json: use_karras_sigmas is True"):
        Backbone(fakes.spec(folder)).scheduler()


def test_a_record_without_a_name_is_of_the_list_of_diffusers() -> None:
    old = {"sampler": {"steps": 2}, "name": "x"}
    assert levels.with_name(old) == {"sampler": {"steps": 2, "levels": "diffusers-0.42"}, "name": "x"}
    assert levels.with_name({"sampler": {"levels": "shifted"}}) == {"sampler": {"levels": "shifted"}}
    assert levels.with_name({"kind": "images"}) == {"kind": "images"}
    assert "levels" not in old["sampler"] and records.dumps(old)  # the record itself stays
