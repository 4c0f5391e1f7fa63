"""The loops that speed is measured against compute what the methods do, and the benchmarks' instruments count right."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import common
import flow_grpo
import loading
import pytest
import sd35_medium
import soar
import torch
from fakes import World
from torch import Tensor

CPU = torch.device("cpu")
ROUND_OFF = 1e-5


@pytest.mark.parametrize(("batch", "micro"), [(2, None), (3, 1), (4, 4)])
def test_soar_and_its_reference_have_one_loss_and_one_gradient(world: World, batch: int, micro: int | None) -> None:
    reference, session, method = soar.both_sides(world.backbone, CPU, batch_size=4, micro_batch=micro)
    reference.batch = batch
    theirs, ours = soar.first_updates(reference, method, session)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)
    assert common.distance(theirs, ours) < ROUND_OFF


def test_soar_and_its_reference_stay_together_over_steps(world: World) -> None:
    reference, session, method = soar.both_sides(world.backbone, CPU, batch_size=4)
    for _ in range(3):
        reference.prepare()
        assert soar.step(method, session) == pytest.approx(reference.step(), rel=1e-4)


def test_soars_reference_notices_another_objective(world: World) -> None:
    reference, session, method = soar.both_sides(world.backbone, CPU, batch_size=4)
    reference.config = reference.config.model_copy(update={"guidance_scale": 1.5})
    theirs, ours = soar.first_updates(reference, method, session)
    assert ours.loss != pytest.approx(theirs.loss, rel=1e-6)
    assert common.distance(theirs, ours) > 100 * ROUND_OFF


def test_soars_reference_holds_more_memory(world: World) -> None:
    reference, session, method = soar.both_sides(world.backbone, CPU, batch_size=4, micro_batch=2)
    reference.prepare()
    reference.step()
    soar.step(method, session)
    held = common.peak_activation(reference.step, CPU, reference.parameters)
    needed = common.peak_activation(lambda: soar.step(method, session), CPU, session.job.parameters)
    assert needed <= 0.5 * held


SETTINGS = dict(prompts=2, group_size=4, sampling_steps=3, lora_rank=2, lora_alpha=4, lr=1e-2)


@pytest.mark.parametrize(("batch", "micro"), [(3, None), (8, 2)])
def test_flow_grpo_and_its_reference_have_one_loss(world: World, batch: int, micro: int | None) -> None:
    reference, session, method = flow_grpo.both_sides(
        world.backbone, CPU, settings=SETTINGS, prompts=4, micro_batch=micro
    )
    reference.batch = batch
    theirs, ours = flow_grpo.first_updates(reference, method, session)
    scale = float(reference.advantages.abs().mean())
    assert abs(ours.loss - theirs.loss) < ROUND_OFF * scale


def test_flow_grpo_and_its_reference_have_one_gradient(world: World) -> None:
    reference, session, method = flow_grpo.both_sides(world.backbone, CPU, settings=SETTINGS, prompts=4)
    theirs, ours = flow_grpo.first_updates(reference, method, session)
    assert common.distance(theirs, ours) < 10 * ROUND_OFF


def test_flow_grpo_and_its_reference_stay_together_over_updates(world: World) -> None:
    """The second update is off the policy that sampled: ratios differ from one, and clipping and divergence count."""
    reference, session, method = flow_grpo.both_sides(
        world.backbone, CPU, settings=SETTINGS | {"lr": 1e-4, "clip_range": 0.05}, prompts=4
    )
    for _ in range(2):
        reference.prepare()
        theirs = reference.epoch()
        seen = _losses(method, session)
        assert len(seen) == 2
        assert seen == pytest.approx(theirs, abs=1e-4)
        assert abs(theirs[1] - theirs[0]) > 1e-3


def _losses(method: Any, session: Any) -> list[float]:
    """Loss of each update of an epoch."""
    job = session.job
    sums, update = [(0.0, 0.0)], job.update

    def recording() -> None:
        sums.append(session.ledger.logged("loss"))
        update()

    job.update = recording
    flow_grpo.epoch(method, session)
    del job.update
    return [(after - before) / (count - seen) for (before, seen), (after, count) in pairwise(sums)]


def test_live_bytes_count_what_is_held_and_no_more() -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(10, 10), torch.nn.GELU(), torch.nn.Linear(10, 10))
    data, size = torch.randn(100, 10), 100 * 10 * 4
    with common.LiveBytes(layers.parameters()) as counter:
        out = layers(data)
        assert counter.live == 3 * size  # two inputs that backward needs, and the output
        view = out.view(10, 100)
        assert counter.live == 3 * size
        loss = out.sum()
        del out, view
        assert counter.live == 2 * size + 4
        loss.backward()
        assert counter.live == 4  # gradients lie in .grad by now, and are not activations
        del loss
        assert counter.live == 0
        data.mul_(2)
        assert counter.live == 0
    assert counter.peak >= 3 * size


def test_alternate_runs_every_side_as_often() -> None:
    calls: list[str] = []
    seconds = common.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, CPU)
    assert calls == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}


def test_captions_differ_and_fit_the_embedded_tokenizers() -> None:
    from transformers import CLIPTokenizer

    from bench.backbone.loader import TINY_SD3

    every = common.captions(342)
    assert len(set(every)) == 342
    tokenizer = CLIPTokenizer.from_pretrained(Path(TINY_SD3.source) / "tokenizer")
    assert max(len(tokenizer(caption).input_ids) for caption in every) <= 12


def test_the_shrunk_pipeline_opens_with_the_loader(tmp_path: Path) -> None:
    from bench.backbone import loader

    common.make_pipeline(tmp_path / "shrunk", width=64, depth=2, resolution=32)
    backbone = loader.find(str(tmp_path / "shrunk"), max_sequence_length=77)
    assert backbone.latent_shape == (16, 4, 4)
    reference, session, method = soar.both_sides(backbone, CPU, batch_size=2)
    theirs, ours = soar.first_updates(reference, method, session)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)


def test_a_pipeline_is_shrunk_to_a_width_whose_channels_share_few_factors(tmp_path: Path) -> None:
    import json

    common.make_pipeline(tmp_path, width=256, depth=1, resolution=16)
    vae = json.loads((tmp_path / "vae" / "config.json").read_text())
    assert vae["block_out_channels"] == [24, 40, 88, 88]  # 256 / 1536 of 128, 256, 512 and 512, in steps of 8
    assert vae["norm_num_groups"] == 8


def test_the_full_size_configuration_is_sd35_mediums() -> None:
    from diffusers import SD3Transformer2DModel

    with torch.device("meta"):
        transformer: Any = SD3Transformer2DModel(**sd35_medium.CONFIG)
    assert sum(p.numel() for p in transformer.parameters()) == 2_243_171_520


def test_caches_written_for_loading_are_read_back(tmp_path: Path) -> None:
    shapes = {"latents": (4, 2, 2), "prompt_embeds": (3, 8), "pooled_prompt_embeds": (8,)}
    latents, text = loading.write(tmp_path, shapes, 5, torch.float32)
    index: Tensor = torch.tensor([4, 0])
    assert latents[index].shape == (2, 4, 2, 2)
    assert text[index].prompt_embeds.shape == (2, 3, 8)


def test_a_table_can_be_kept_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.setattr(common, "HERE", tmp_path)
    arguments = common.parser(None).parse_args(["--json", "--machine", "My Laptop", "--device", "cpu"])
    common.tell("some", [common.Figure("speed", 2.0, "x", ">= 1")], ["a note"], arguments, CPU)
    content = json.loads((tmp_path / "some-my-laptop.json").read_text())
    assert content["figures"] == [{"what": "speed", "value": 2.0, "unit": "x", "target": ">= 1"}]
    assert {"device", "versions", "git", "cores"} <= set(content["machine"])
