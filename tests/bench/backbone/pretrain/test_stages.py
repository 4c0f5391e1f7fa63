"""Each stage resumes bit for bit, and a pipeline ships with the tokenizers that it was trained with."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from killed_training import killed_after

from bench.backbone.pretrain import policy, text
from bench.backbone.pretrain.policy import assemble, train_policy
from bench.backbone.pretrain.vae import CONFIG, train_vae
from bench.errors import BenchError
from bench.rng import numpy_generator, torch_generator

CAPTIONS = ["a red circle", "two blue squares", 'a sign saying "cat"', "a square left of a circle"]
WORDS = sorted({word for caption in CAPTIONS for word in caption.split() if '"' not in word})
IMAGES = numpy_generator(0, "images").integers(0, 256, size=(4, 64, 64, 3), dtype=np.uint8)
LATENTS = torch.randn(4, 8, 16, 16, generator=torch_generator(0, "latents"))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    size = dict(num_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=128)
    monkeypatch.setattr(policy, "TRANSFORMER", policy.TRANSFORMER | size | dict(caption_projection_dim=32))


def rows(log: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def test_the_vae_resumes_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    def run(folder: str) -> Any:
        return train_vae(IMAGES, tmp_path / folder, tmp_path / folder / "state.pt", steps=4, batch=2)

    whole = run("whole")
    with killed_after(2):
        run("cut")
    assert not (tmp_path / "cut" / "config.json").exists()
    cut = run("cut")
    assert all(torch.equal(value, cut.state_dict()[name]) for name, value in whole.state_dict().items())
    assert whole.config.scaling_factor == cut.config.scaling_factor > 0
    assert rows(tmp_path / "whole" / "training_log.jsonl") == rows(tmp_path / "cut" / "training_log.jsonl")


def run_policy(work: Path, **changed: Any) -> policy.Trained:
    return train_policy(**dict(latents=LATENTS, captions=CAPTIONS, words=WORDS, work=work, steps=4, batch=2) | changed)


def test_the_policy_resumes_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    whole = run_policy(tmp_path / "whole").state_dict()
    with killed_after(2):
        run_policy(tmp_path / "cut")
    kept = {path: path.read_bytes() for path in (tmp_path / "cut").rglob("tokenizer*/*")}
    cut = run_policy(tmp_path / "cut").state_dict()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert rows(tmp_path / "whole" / "training_log.jsonl") == rows(tmp_path / "cut" / "training_log.jsonl")
    assert kept and all(path.read_bytes() == content for path, content in kept.items())


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"steps": 5}, "steps"),
        ({"words": [*WORDS, "green"]}, "token_ids, words"),
        ({"captions": CAPTIONS[::-1]}, "captions"),
        ({"latents": LATENTS + 1}, "latents"),
        ({"caption_dropout": 0.2}, "caption_dropout"),
    ],
)
def test_a_policy_of_another_recipe_is_not_gone_on_with(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    run_policy(tmp_path, steps=1)
    run_policy(tmp_path, steps=1)
    with pytest.raises(BenchError, match=f"is of a training with another {named}; delete it"):
        run_policy(tmp_path, **{"steps": 1} | changed)


def test_tokenizers_that_are_gone_end_in_one_line(tmp_path: Path) -> None:
    run_policy(tmp_path, steps=1)
    (tmp_path / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(BenchError, match="tokenizer holds no tokenizer of this training"):
        run_policy(tmp_path, steps=1)


def test_a_pipeline_ships_with_the_ids_that_it_was_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[list[int]]] = {}
    texts = [*WORDS, *(f'"{letter}{letter}"' for letter in string.ascii_lowercase), *CAPTIONS]
    encode_ids = text.token_ids

    def watched(tokenizer: Any, captions: Any, *length: int) -> torch.Tensor:
        seen[type(tokenizer).__name__] = [list(tokenizer(t).input_ids) for t in texts]
        return encode_ids(tokenizer, captions, *length)

    monkeypatch.setattr(text, "token_ids", watched)
    model = run_policy(tmp_path / "work", steps=1)
    assemble(model, AutoencoderKL(**CONFIG), tmp_path / "work").save_pretrained(tmp_path / "pipeline")
    shipped = StableDiffusion3Pipeline.from_pretrained(tmp_path / "pipeline")
    for name, kind in (
        ("tokenizer", "CLIPTokenizer"),
        ("tokenizer_2", "CLIPTokenizer"),
        ("tokenizer_3", "T5Tokenizer"),
    ):
        assert [list(getattr(shipped, name)(t).input_ids) for t in texts] == seen[kind]
    table = json.loads((tmp_path / "work" / "token_ids.json").read_text())
    assert table == text.id_table({"tokenizer": shipped.tokenizer, "tokenizer_3": shipped.tokenizer_3}, WORDS)
    assert all(len(table["tokenizer"][word]) == 3 and len(table["tokenizer_3"][word]) == 2 for word in WORDS)


def test_a_caption_that_is_too_long_ends_in_one_line() -> None:
    clip = text.make_clip_tokenizer(WORDS)
    with pytest.raises(
        BenchError, match="'a red circle a red circle a red circle a red circle' has more than 12 tokens"
    ):
        text.token_ids(clip, ["a red circle", " ".join(["a red circle"] * 4)])
    assert text.token_ids(clip, ["a red circle"], 6).shape == (1, 6)
