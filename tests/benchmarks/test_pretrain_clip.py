"""The judge's training resumes bit for bit, and leaves all that the judge reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_training import killed_after
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from bench.errors import BenchError
from bench.rng import numpy_generator
from benchmarks.pretrain_clip import MAX_TOKENS, STYLES, train_clip

RNG = numpy_generator(0, "clip")
IMAGES = RNG.integers(0, 256, size=(40, 64, 64, 3), dtype=np.uint8)
STYLE = RNG.random(40)
CAPTIONS = ["a red circle", 'a sign saying "cat"'] * 20
WORDS = ["a", "circle", "red", "saying", "sign"]


def run(folder: Path, words: list[str] = WORDS) -> dict[str, torch.Tensor]:
    train_clip(IMAGES, CAPTIONS, STYLE, words, folder / "clip", folder / "state.pt", steps=4, batch=4)
    head = load_file(folder / "clip" / "aesthetic_head.safetensors")
    return load_file(folder / "clip" / "model.safetensors") | head


def test_the_judge_resumes_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with killed_after(2):
        run(tmp_path / "cut")
    cut = run(tmp_path / "cut")
    assert whole.keys() == cut.keys() and all(torch.equal(value, cut[name]) for name, value in whole.items())
    log = [json.loads(line) for line in (tmp_path / "cut" / "clip" / "training_log.jsonl").read_text().splitlines()]
    assert log[-2]["step"] == 4 and log[-1].keys() == {"head_r2"}


def test_the_judge_ships_its_tokenizer_and_no_state(tmp_path: Path) -> None:
    run(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "clip")
    assert tokenizer.model_max_length == MAX_TOKENS
    assert all(len(tokenizer(word).input_ids) == 3 for word in (*WORDS, *STYLES))
    assert not list((tmp_path / "clip").glob("*.pt"))


def test_a_judge_of_other_words_is_not_gone_on_with(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(BenchError, match="is of a training with another token_ids, words; delete it"):
        run(tmp_path, [*WORDS, "green"])
