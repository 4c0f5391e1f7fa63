"""Tiny random pipelines in the layout of the real ones: SD3.5-M and -L, FLUX.1-dev, SD-XL, for 32 px pictures.

As on the hub, CLIP's tokenizers are ``vocab.json`` and ``merges.txt``, T5's is ``tokenizer.json``; the denoiser is
sharded, weights are bf16, and ``model_index.json`` names the classes of the time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORDS = ("a", "red", "blue", "circle", "square")
CLIP_WIDTH, T5_WIDTH, SIDE = 16, 32, 32


SD35_MEDIUM = {
    "transformer": dict(
        _class_name="SD3Transformer2DModel", attention_head_dim=64, caption_projection_dim=1536,
        dual_attention_layers=list(range(13)), in_channels=16, joint_attention_dim=4096, num_attention_heads=24,
        num_layers=24, out_channels=16, patch_size=2, pooled_projection_dim=2048, pos_embed_max_size=384,
        qk_norm="rms_norm", sample_size=128,
    ),
    "vae": dict(
        _class_name="AutoencoderKL", block_out_channels=[128, 256, 512, 512], latent_channels=16, sample_size=1024,
        scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False,
    ),
    "text_encoder": dict(hidden_size=768, projection_dim=768, vocab_size=49408, max_position_embeddings=77),
    "text_encoder_2": dict(hidden_size=1280, projection_dim=1280, vocab_size=49408, max_position_embeddings=77),
    "text_encoder_3": dict(d_model=4096, d_ff=10240, num_layers=24, num_heads=64, vocab_size=32128),
}  # fmt: skip
"""The numbers of ``stabilityai/stable-diffusion-3.5-medium`` that stand in its configs."""


def make_sd35(folder: Path, *, size: str = "large") -> Path:
    """A StableDiffusion3Pipeline shaped as SD3.5-Medium (dual attention) or -Large (none)."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    def build(clip: Any, t5: Any, one: Any, two: Any, three: Any) -> Any:
        return StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=SIDE // 8,
                patch_size=2,
                in_channels=16,
                out_channels=16,
                num_layers=2,
                num_attention_heads=2,
                attention_head_dim=16,
                joint_attention_dim=T5_WIDTH,
                caption_projection_dim=32,
                pooled_projection_dim=2 * CLIP_WIDTH,
                pos_embed_max_size=4,
                dual_attention_layers=(0,) if size == "medium" else (),
                qk_norm="rms_norm",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
            vae=_vae(16, shift_factor=0.0609, scaling_factor=1.5305),
            text_encoder=one, tokenizer=clip, text_encoder_2=two, tokenizer_2=clip,
            text_encoder_3=three, tokenizer_3=t5,
        )  # fmt: skip

    return _save(folder, build)


def make_flux(folder: Path) -> Path:
    """A FluxPipeline shaped as FLUX.1-dev: guidance embedded, 2 x 2 latents a token."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    def build(clip: Any, t5: Any, one: Any, two: Any, three: Any) -> Any:
        return FluxPipeline(
            transformer=FluxTransformer2DModel(
                patch_size=1,
                in_channels=64,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=T5_WIDTH,
                pooled_projection_dim=CLIP_WIDTH,
                guidance_embeds=True,
                axes_dims_rope=(4, 6, 6),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
            ),
            vae=_vae(16, shift_factor=0.1159, scaling_factor=0.3611),
            text_encoder=CLIPTextModel(one.config), tokenizer=clip, text_encoder_2=three, tokenizer_2=t5,
        )  # fmt: skip

    return _save(folder, build)


def make_sdxl(folder: Path) -> Path:
    """A StableDiffusionXLPipeline shaped as SD-XL base: UNet, two CLIPs, no T5."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    def build(clip: Any, t5: Any, one: Any, two: Any, three: Any) -> Any:
        return StableDiffusionXLPipeline(
            unet=UNet2DConditionModel(
                sample_size=SIDE // 8,
                in_channels=4,
                out_channels=4,
                block_out_channels=(8, 16),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                layers_per_block=1,
                norm_num_groups=4,
                attention_head_dim=(2, 4),
                use_linear_projection=True,
                cross_attention_dim=2 * CLIP_WIDTH,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + CLIP_WIDTH,
            ),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading"
            ),
            vae=_vae(4, scaling_factor=0.13025),
            text_encoder=CLIPTextModel(one.config), tokenizer=clip, text_encoder_2=two, tokenizer_2=clip,
        )  # fmt: skip

    return _save(folder, build)


MAKERS: dict[str, Callable[[Path], Path]] = {"SD3": make_sd35, "FLUX.1": make_flux, "SDXL": make_sdxl}
"""Title of a family → what writes a tiny pipeline of it."""


def _vae(channels: int, **scale: float) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=2,
        layers_per_block=1,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=SIDE,
        **scale,
    )


def _save(folder: Path, build: Callable[..., Any]) -> Path:
    from bench.backbone.pretrain.text import make_clip_tokenizer, make_t5_tokenizer, make_text_encoders

    clip, t5 = make_clip_tokenizer(WORDS), make_t5_tokenizer(WORDS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = build(clip, t5, *make_text_encoders(clip, t5, clip_width=CLIP_WIDTH, t5_width=T5_WIDTH))
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            torch.nn.Module.to(part, torch.bfloat16)
    pipeline.save_pretrained(folder, max_shard_size="50KB")
    index = json.loads((folder / "model_index.json").read_text())
    for name in [name for name in index if name.startswith("tokenizer")]:
        if index[name][1] == "T5Tokenizer":
            index[name] = ["transformers", "T5TokenizerFast"]
        else:
            _as_vocab_and_merges(folder / name)
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _as_vocab_and_merges(tokenizer: Path) -> None:
    model = json.loads((tokenizer / "tokenizer.json").read_text())["model"]
    (tokenizer / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (tokenizer / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (tokenizer / "tokenizer.json").unlink()
