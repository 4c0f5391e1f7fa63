"""Text encoders without weights have the sizes of SD3's, and fit the transformer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from bench.check.world import TRANSFORMER
from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig
from bench.plan.architecture import SD3_TEXT, SD3_TEXT_PARAMETERS, find
from bench.rehearsal.encoders import Tokens, text_pipeline


@pytest.mark.parametrize("part", SD3_TEXT)
def test_sd3_s_encoders_have_their_parameters(part: str) -> None:
    model: Any
    with torch.device("meta"):
        if part == "text_encoder_3":
            model = T5EncoderModel(T5Config.from_dict(SD3_TEXT[part]))
        else:
            model = CLIPTextModelWithProjection(CLIPTextConfig.from_dict(SD3_TEXT[part]))
    assert sum(each.numel() for each in model.parameters()) == SD3_TEXT_PARAMETERS[part]


def test_what_a_folder_does_not_say_is_sd3_s_and_must_fit(tmp_path: Path) -> None:
    for part, config in (("transformer", TRANSFORMER), ("text_encoder", {"projection_dim": 8})):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config), encoding="utf-8")
    architecture = find(ExperimentConfig(backbone=str(tmp_path), resolution=16), None)
    assert architecture.text_encoders == SD3_TEXT | {"text_encoder": {"projection_dim": 8}}
    with pytest.raises(BenchError, match="give 4096 and 1288 channels, and its transformer takes 32 and 32; put text_"):
        text_pipeline(architecture, torch.float32, FlowMatchEulerDiscreteScheduler())


def test_tokens_are_as_many_as_are_asked_for() -> None:
    tokens = Tokens(77)
    assert tokens(["a", "b"], padding="max_length").input_ids.shape == (2, 77)
    assert tokens(["a"], padding="max_length", max_length=256, truncation=True).input_ids.shape == (1, 256)
    assert tokens(["a"], padding="longest", return_tensors="pt").input_ids.shape == (1, 1)
