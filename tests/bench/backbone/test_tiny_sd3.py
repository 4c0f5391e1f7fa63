"""The shipped backbone is what it says: a real pipeline, past its gates, sampled as diffusers samples it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from bench.backbone import loader
from bench.backbone.policy import Policy
from bench.backbone.pretrain import text
from bench.evaluation import Conditions, PolicyPainter
from bench.rng import torch_generator
from bench.suite import Prompt, Sampler
from benchmarks.backbone_quality import GATES, round_trip

FOLDER = Path(loader.TINY_SD3.source)
PROMPTS = ["a red circle and a blue square", 'a sign saying "note"', "three stars"]


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusion3Pipeline:
    pipe = StableDiffusion3Pipeline.from_pretrained(FOLDER)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def backbone() -> loader.Backbone:
    return loader.find("tiny-sd3")


def test_a_tokenizer_made_again_gives_every_token_the_same_id() -> None:
    """It is made where a backbone is trained and where it is put together."""
    one, *others = (text.make_clip_tokenizer(["red", "square", "squares", "below"]).get_vocab() for _ in range(4))
    assert len(one) > 80 and others == [one] * 3


def test_from_pretrained_alone_gives_every_component(pipeline: StableDiffusion3Pipeline) -> None:
    kinds = {name: type(part).__name__ for name, part in pipeline.components.items() if part is not None}
    expected = {
        "transformer": "SD3Transformer2DModel",
        "vae": "AutoencoderKL",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "text_encoder": "CLIPTextModelWithProjection",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
    }
    assert expected.items() <= kinds.items()
    assert {"tokenizer", "tokenizer_2", "tokenizer_3"} <= kinds.keys()


def test_the_folder_is_at_most_25_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 25e6


def test_the_recorded_quality_passes_every_gate() -> None:
    quality = json.loads((FOLDER / "quality.json").read_text())
    assert all(low <= quality[name] <= high for name, (low, high) in GATES.items()), quality


def test_it_ships_with_the_ids_that_it_was_trained_with(pipeline: StableDiffusion3Pipeline) -> None:
    table = json.loads((FOLDER / "token_ids.json").read_text())
    shipped = {name: getattr(pipeline, name) for name in ("tokenizer", "tokenizer_2", "tokenizer_3")}
    assert set(table) == {"tokenizer", "tokenizer_3"} and len(table["tokenizer"]) > 60
    for name, made in shipped.items():
        ids = table["tokenizer" if name == "tokenizer_2" else name]
        assert {text: list(made(text).input_ids) for text in ids} == ids


def test_the_training_logs_are_shipped() -> None:
    for name in ("vae/training_log.jsonl", "transformer/training_log.jsonl"):
        rows = [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]
        assert len(rows) > 10
        assert rows[-1]["step"] > rows[0]["step"]


def test_the_vae_keeps_scenes_and_signs(backbone: loader.Backbone) -> None:
    kept = round_trip(backbone, scenes_per_task=20, signs=20, seed=11)
    assert kept["vae_scenes_kept"] >= 0.98
    assert kept["vae_signs_kept"] >= 0.95


def test_the_policy_samples_what_the_pipeline_samples(
    pipeline: StableDiffusion3Pipeline, backbone: loader.Backbone
) -> None:
    noise = torch.randn(len(PROMPTS), *backbone.latent_shape, generator=torch.Generator().manual_seed(3))
    policy = Policy(backbone.transformer(), backbone.scheduler(), backbone.encode_prompts([""]))
    ours = policy.sample(noise, backbone.encode_prompts(PROMPTS), steps=6, guidance_scale=4.5)
    theirs = pipeline(
        PROMPTS,
        latents=noise,
        num_inference_steps=6,
        guidance_scale=4.5,
        height=64,
        width=64,
        max_sequence_length=12,
        output_type="latent",
    ).images
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_painter_draws_what_the_pipeline_draws(pipeline: StableDiffusion3Pipeline, backbone: loader.Backbone) -> None:
    """Images, from the same noise: equal but for the last of 8 bits, where round-off lies on an edge."""
    policy = Policy(backbone.transformer(), backbone.scheduler(), backbone.encode_prompts([""]))
    painter = PolicyPainter(policy, backbone, Sampler(6, 4.5, 64), Conditions(backbone, PROMPTS))
    seeds = list(range(len(PROMPTS)))
    ours = painter.draw([Prompt(str(seed), PROMPTS[seed]) for seed in seeds], seeds)
    theirs = pipeline(
        PROMPTS,
        latents=torch.stack([torch.randn(backbone.latent_shape, generator=torch_generator(seed)) for seed in seeds]),
        num_inference_steps=6,
        guidance_scale=4.5,
        height=64,
        width=64,
        max_sequence_length=12,
        output_type="np",
    ).images
    off = np.abs(np.stack([image for image in ours if image is not None]).astype(float) - theirs * 255)
    assert off.max() <= 0.5 + 0.02 and len(ours) == len(theirs)


def test_training_encodes_text_as_the_pipeline_does(
    pipeline: StableDiffusion3Pipeline, backbone: loader.Backbone
) -> None:
    encoders = (pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3)
    ids = text.token_ids(pipeline.tokenizer, PROMPTS), text.token_ids(pipeline.tokenizer_3, PROMPTS)
    with torch.no_grad():
        embeds, pooled = text.encode(*ids, *encoders)
    condition = backbone.encode_prompts(PROMPTS)
    torch.testing.assert_close(embeds, condition.prompt_embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pooled, condition.pooled_prompt_embeds, rtol=1e-5, atol=1e-5)
