"""Weights as training leaves them: a moved transformer and one with an adapter, and what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def transformer(pipeline: Path, change: float = 0.0) -> Any:
    """The pipeline's transformer, its weights moved by noise of size ``change``."""
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel.from_pretrained(pipeline, subfolder="transformer").eval()
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data += change * torch.randn(parameter.shape, generator=generator)
    return model


def adapted(pipeline: Path) -> Any:
    """The pipeline's transformer with a LoRA whose alpha is not its rank, as Flow-GRPO's is not."""
    from peft import LoraConfig

    model = transformer(pipeline)
    model.add_adapter(LoraConfig(r=2, lora_alpha=6, target_modules=["attn.to_q", "attn.to_out.0"]))
    generator = torch.Generator().manual_seed(6)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def velocity(model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    shapes = {"hidden_states": (2, 4, 4, 4), "encoder_hidden_states": (2, 5, 32), "pooled_projections": (2, 32)}
    inputs = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    with torch.no_grad():
        return model(**inputs, timestep=torch.tensor([900.0, 100.0])).sample
