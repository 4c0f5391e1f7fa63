"""Models drawn for context: SD3.5-L's, FLUX.1-dev's and SD-XL's shapes through diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pipelines
import pytest
import torch

from bench.backbone import hub
from bench.backbone.context import CARDS, ContextPipeline, weight_bytes
from bench.backbone.family import DRAWN
from bench.errors import BenchError
from bench.suite import Prompt

CPU = torch.device("cpu")
PROMPTS = [Prompt(str(i), text) for i, text in enumerate(("a red circle", "a blue square", "a red circle"))]


@pytest.fixture(scope="module", params=list(pipelines.MAKERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipelines.MAKERS[request.param](tmp_path_factory.mktemp("context") / "pipeline")


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipelines.make_sd35(tmp_path_factory.mktemp("context") / "sd3")


def _pipeline(folder: Path, **options: Any) -> ContextPipeline:
    return ContextPipeline(str(folder), **({"device": CPU, "dtype": torch.float32, "steps": 2} | options))


def test_pictures_depend_on_prompt_and_seed_and_not_on_the_batch(folder: Path) -> None:
    together = _pipeline(folder).draw(PROMPTS, [1, 2, 3])
    assert [(p.shape, p.dtype) for p in together] == [((32, 32, 3), np.uint8)] * 3
    assert all(picture.std() > 1 for picture in together)
    # sums of another order may move a pixel across a rounding edge, no more
    for batch in (1, 2):
        for one, other in zip(_pipeline(folder, batch=batch).draw(PROMPTS, [1, 2, 3]), together, strict=True):
            assert np.abs(one.astype(int) - other).max() <= 1
    assert not np.array_equal(together[0], together[2])  # one prompt, two seeds
    (again,) = _pipeline(folder).draw(PROMPTS[1:2], [1])
    assert not np.array_equal(again, together[0])  # one seed, two prompts


def test_steps_and_guidance_reach_the_model(folder: Path) -> None:
    base = _pipeline(folder).draw(PROMPTS[:1], [1])[0]
    assert not np.array_equal(_pipeline(folder, steps=3).draw(PROMPTS[:1], [1])[0], base)
    assert not np.array_equal(_pipeline(folder, guidance_scale=1.5).draw(PROMPTS[:1], [1])[0], base)
    assert _pipeline(folder, resolution=48).draw(PROMPTS[:1], [1])[0].shape == (48, 48, 3)


def test_records_tell_the_model_and_its_settings(folder: Path) -> None:
    pipeline = ContextPipeline(str(folder), device=CPU, dtype=torch.bfloat16)
    described = pipeline.describe()
    card = CARDS[pipeline.family.pipeline]
    assert described == {
        "id": str(folder),
        "family": pipeline.family.title,
        "revision": None,
        "fingerprint": hub.fingerprint(folder),
        "steps": card.steps,
        "guidance_scale": card.guidance_scale,
        "max_sequence_length": card.max_sequence_length,
        "resolution": 32,
        "dtype": "bfloat16",
    }


def test_every_family_that_can_be_drawn_has_a_model_card() -> None:
    assert {family.pipeline for family in DRAWN} == CARDS.keys()


def test_it_computes_in_bfloat16(sd3: Path) -> None:
    picture = _pipeline(sd3, dtype=torch.bfloat16).draw(PROMPTS[:1], [1])[0]
    assert picture.std() > 1


def test_nothing_is_loaded_before_the_first_picture_nor_kept_after_close(
    sd3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load = ContextPipeline.load
    monkeypatch.setattr(ContextPipeline, "load", lambda self: loads.append(1) or load(self))
    pipeline = _pipeline(sd3)
    pipeline.close()
    assert loads == []
    first = pipeline.draw(PROMPTS, [1, 2, 3])
    assert loads == [1]
    pipeline.close()
    assert all(np.array_equal(a, b) for a, b in zip(pipeline.draw(PROMPTS, [1, 2, 3]), first, strict=True))
    assert loads == [1, 1]  # close had freed it


def test_pictures_that_are_no_numbers_are_an_error_not_black(sd3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = _pipeline(sd3)
    broken = pipeline.load()
    with torch.no_grad():
        broken.transformer.proj_out.bias.fill_(torch.nan)
    monkeypatch.setattr(pipeline, "load", lambda: broken)
    with pytest.raises(BenchError, match=r"not a number in torch\.float32"):
        pipeline.draw(PROMPTS[:1], [1])


def test_wrong_folders_end_in_one_line(sd3: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"^there is no folder .*none$"):
        _pipeline(tmp_path / "none")
    with pytest.raises(BenchError, match=r"model_index\.json is not there"):
        _pipeline(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    with pytest.raises(BenchError, match=r"holds a WanPipeline; the harness evaluates SD3 .*FLUX\.1 .*SDXL") as raised:
        _pipeline(tmp_path)
    assert "\n" not in str(raised.value)
    with pytest.raises(BenchError, match="leave the revision out"):
        _pipeline(sd3, revision="main")


@pytest.mark.parametrize(("memory", "offloads"), [(10**9, False), (10**5, True)])
def test_weights_that_would_fill_a_gpu_are_moved_part_by_part(
    sd3: Path, monkeypatch: pytest.MonkeyPatch, memory: int, offloads: bool
) -> None:
    from diffusers import DiffusionPipeline

    pipeline, done = _pipeline(sd3), []
    pipeline.device = torch.device("cuda")
    monkeypatch.setattr(DiffusionPipeline, "enable_model_cpu_offload", lambda self, device: done.append("offload"))
    monkeypatch.setattr(DiffusionPipeline, "to", lambda self, device: done.append("whole"))
    properties = type("Properties", (), {"total_memory": memory})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    pipeline.load()
    assert done == (["offload"] if offloads else ["whole"])


def test_weight_bytes_are_those_of_the_loaded_parts(folder: Path) -> None:
    pipeline = _pipeline(folder)
    loaded = pipeline.load()
    parts = [part for part in loaded.components.values() if isinstance(part, torch.nn.Module)]
    tensors = [t for part in parts for t in part.state_dict(keep_vars=True).values() if t.is_floating_point()]
    unique = {id(t): t.numel() * 4 for t in tensors}
    assert weight_bytes(folder, pipeline.family, torch.float32) == pytest.approx(sum(unique.values()), rel=0.01)
