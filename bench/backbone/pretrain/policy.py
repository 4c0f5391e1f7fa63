"""Stage 2 of the embedded backbone: SD3's transformer and its three text encoders, trained together on the world.

SD3.5 takes its text encoders ready-made from web-scale training; the world has no such thing, so here they learn with
the transformer. Post-training then freezes them, as it does for SD3.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTokenizer, T5Tokenizer

from bench import flow, records
from bench.backbone.pretrain import text
from bench.backbone.pretrain.training import Schedule, content, initial_weights, train, write_log

TRANSFORMER = dict(
    sample_size=16,
    patch_size=2,
    in_channels=8,
    out_channels=8,
    num_layers=6,
    attention_head_dim=64,
    num_attention_heads=2,
    joint_attention_dim=128,
    caption_projection_dim=128,
    pooled_projection_dim=128,
    pos_embed_max_size=16,
    dual_attention_layers=(0,),  # SD3.5-Medium has thirteen of 24 and RMS-normed queries and keys
    qk_norm="rms_norm",
)
SHIFT = 3.0
"""Timestep shift of SD3 and SD3.5 (their ``scheduler_config.json``)."""


STEPS, RESTART = 6500, 5000
"""Steps of the recipe, and the step at which its second cycle begins. After the first cycle GenEval was 0.47."""


class Trained(torch.nn.Module):
    """What this stage trains: two CLIP towers and a T5 encoder in ``encoders``, and the ``transformer``."""

    def __init__(self, encoders: tuple[torch.nn.Module, ...], transformer: SD3Transformer2DModel) -> None:
        super().__init__()
        self.encoders = torch.nn.ModuleList(encoders)
        self.transformer = transformer


def tokenizers(folder: Path, words: Sequence[str] | None) -> tuple[CLIPTokenizer, T5Tokenizer]:
    """The CLIP and the T5 tokenizer of ``folder``, made there from ``words`` if they are given."""
    return (
        text.kept_tokenizer(
            CLIPTokenizer, folder / "tokenizer", None if words is None else lambda: text.make_clip_tokenizer(words)
        ),
        text.kept_tokenizer(
            T5Tokenizer, folder / "tokenizer_3", None if words is None else lambda: text.make_t5_tokenizer(words)
        ),
    )


def train_policy(
    latents: torch.Tensor,
    captions: Sequence[str],
    words: Sequence[str],
    work: Path,
    *,
    steps: int = STEPS,
    restart: int = 0,
    device: str = "cpu",
    batch: int = 64,
    lr: float = 1.5e-3,
    weight_decay: float = 0.02,
    caption_dropout: float = 0.1,
    seed: int = 0,
    compiled: bool = False,
) -> Trained:
    """Flow matching from scratch for ``steps``; resumes from ``work/state.pt``.

    Tokenizers are made once, when a training starts, and lie in ``work``; ``work/token_ids.json`` says what they give.
    The learning rate is constant after a warm-up of 300 steps and falls to zero over the last half of the first cycle.
    A second cycle falls to zero from its warm-up on. Weights, noise levels and loss are float32.

    Args:
        latents: float32 (N, C, H, W), scaled as the VAE's configuration says.
        captions: N texts.
        words: what becomes one token each.
        restart: first step of a second cycle; 0: there is none.

    Returns:
        The exponential moving average (decay 0.999) of the weights.
    """
    state = work / "state.pt"
    clip, t5 = tokenizers(work, None if state.exists() else words)
    table = text.id_table({"tokenizer": clip, "tokenizer_3": t5}, words)
    records.write_json(work / "token_ids.json", table)
    with initial_weights(seed, "policy"):
        model = Trained(text.make_text_encoders(clip, t5), SD3Transformer2DModel(**TRANSFORMER)).to(device)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
    transformer = torch.compile(model.transformer) if compiled else model.transformer
    rows = [*captions, ""]
    clip_ids, t5_ids = text.token_ids(clip, rows).to(device), text.token_ids(t5, rows).to(device)

    def loss_of(rng: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        pick = torch.randint(len(latents), (batch,), generator=rng)
        drop = torch.rand(batch, generator=rng) < caption_dropout
        z1 = torch.randn(batch, *latents.shape[1:], generator=rng).to(device)
        sigma = flow.shift_time(torch.sigmoid(torch.randn(batch, generator=rng)), SHIFT).to(device)
        words_of = torch.where(drop, len(rows) - 1, pick).to(device)
        z0 = latents[pick].to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            embeds, pooled = text.encode(clip_ids[words_of], t5_ids[words_of], *model.encoders)
            velocity = transformer(
                hidden_states=flow.interpolate(z0, z1, sigma),
                encoder_hidden_states=embeds,
                pooled_projections=pooled,
                timestep=1000 * sigma,
                return_dict=False,
            )[0]
        return flow.velocity_error(velocity.float(), z1 - z0).mean(), {}

    trained, log = train(
        model,
        optimizer,
        loss_of,
        Schedule(steps, lr, warm_up=300, decay_share=0.5, restart=restart),
        state,
        stage="policy",
        seed=seed,
        identity={
            "model": TRANSFORMER,
            "latents": content(latents),
            "captions": records.digest(list(captions)),
            "words": records.digest(sorted(set(words))),
            "token_ids": records.digest(table),
            "batch": batch,
            "weight_decay": weight_decay,
            "caption_dropout": caption_dropout,
        },
        ema=0.999,
    )
    write_log(log, work)
    return trained


def assemble(model: Trained, vae: AutoencoderKL, work: Path) -> StableDiffusion3Pipeline:
    """A complete SD3 pipeline around trained parts, with the tokenizers that lie in the training's folder."""
    clip, t5 = tokenizers(work, None)
    one, two, three = model.encoders
    return StableDiffusion3Pipeline(
        transformer=model.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT),
        vae=vae,
        text_encoder=one,
        tokenizer=clip,
        text_encoder_2=two,
        tokenizer_2=clip,
        text_encoder_3=three,
        tokenizer_3=t5,
    )
