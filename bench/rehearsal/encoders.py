"""Text encoders of an SD3 pipeline without weights, and tokenizers that read nothing: for captions encoded ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import BenchError
from bench.plan.architecture import Architecture

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline


class Tokens:
    """Ids of texts as long as they are asked for; the texts are not read.

    Args:
        length: tokens of a text, where the call does not say.
    """

    def __init__(self, length: int) -> None:
        self.model_max_length = length

    def __call__(
        self, texts: Sequence[str], *, padding: str, max_length: int | None = None, **options: Any
    ) -> SimpleNamespace:
        """Ids (N, max_length); with ``padding="longest"`` (N, 1), since no text is too long."""
        length = (max_length or self.model_max_length) if padding == "max_length" else 1
        return SimpleNamespace(input_ids=torch.zeros(len(texts), length, dtype=torch.int64))


def text_pipeline(
    architecture: Architecture, dtype: torch.dtype, scheduler: FlowMatchEulerDiscreteScheduler
) -> StableDiffusion3Pipeline:
    """A pipeline of text encoders on the pretended device, for its ``encode_prompt``.

    Raises:
        BenchError: the encoders' widths are not those that the transformer takes.
    """
    from diffusers import StableDiffusion3Pipeline
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    configs = architecture.text_encoders
    clips = [CLIPTextConfig.from_dict(dict(configs[part])) for part in ("text_encoder", "text_encoder_2")]
    t5 = T5Config.from_dict(dict(configs["text_encoder_3"]))
    _check_widths(architecture, t5.d_model, sum(clip.projection_dim for clip in clips))
    with _default(dtype), torch.device("cuda"):
        one, two = (CLIPTextModelWithProjection(clip) for clip in clips)
        three = T5EncoderModel(t5)
    for model in (one, two, three):
        model.eval().requires_grad_(False)
    return StableDiffusion3Pipeline(
        transformer=None,
        scheduler=scheduler,
        vae=None,
        text_encoder=one,
        tokenizer=Tokens(architecture.clip_tokens),
        text_encoder_2=two,
        tokenizer_2=Tokens(architecture.clip_tokens),
        text_encoder_3=three,
        tokenizer_3=Tokens(architecture.max_sequence_length),
    )


def _check_widths(architecture: Architecture, embeds: int, pooled: int) -> None:
    takes = architecture.transformer["joint_attention_dim"], architecture.transformer["pooled_projection_dim"]
    if (embeds, pooled) != takes:
        raise BenchError(
            f"the text encoders of {architecture.name} give {embeds} and {pooled} channels, and its transformer takes "
            f"{takes[0]} and {takes[1]}; put text_encoder/config.json, text_encoder_2/config.json and "
            "text_encoder_3/config.json beside the transformer's"
        )


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """Inside, new parameters are of this dtype: as when a pipeline is loaded, no other copy is made."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)
