"""Stage 2 of the embedded backbone: SD3's transformer and its three text encoders, trained together on the world.

SD3.5 takes its text encoders ready-made from web-scale training; the world has no such thing, so here they learn with
the transformer. Post-training then freezes them, as it does for SD3.5.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

from bench import flow
from bench.backbone.pretrain import text
from bench.records import saved
from bench.rng import torch_generator

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


class _Model(torch.nn.Module):
    def __init__(self, encoders: tuple[torch.nn.Module, ...], transformer: SD3Transformer2DModel) -> None:
        super().__init__()
        self.encoders = torch.nn.ModuleList(encoders)
        self.transformer = transformer


def train_policy(
    latents: torch.Tensor,
    captions: Sequence[str],
    words: Sequence[str],
    work: Path,
    *,
    minutes: float,
    until: float,
    batch: int = 64,
    lr: float = 1.5e-3,
    caption_dropout: float = 0.1,
    decay_share: float = 0.5,
    seed: int = 0,
    compiled: bool = False,
) -> _Model:
    """Flow matching from scratch on a schedule of ``minutes`` of training time, stopped after ``until`` of them.

    Resumes from ``work/state.pt``.
    ``lr`` is constant after a warm-up of 300 steps and falls to 2 % of itself over the last ``decay_share``.
    Returns the exponential moving average (decay 0.999) of the weights.
    """
    torch.manual_seed(seed)
    clip, t5 = text.make_clip_tokenizer(words), text.make_t5_tokenizer(words)
    encoders = text.make_text_encoders(clip, t5)
    model = _Model(encoders, SD3Transformer2DModel(**TRANSFORMER))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
    ema_fn = torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=ema_fn)
    transformer = torch.compile(model.transformer) if compiled else model.transformer
    rows = [*captions, ""]
    clip_ids, t5_ids = text.token_ids(clip, rows), text.token_ids(t5, rows)
    step, spent, log = 0, 0.0, []
    state = work / "state.pt"
    if state.exists():
        saved_state = saved.load(state, "delete it to start the stage again")
        model.load_state_dict(saved_state["model"])
        average.load_state_dict(saved_state["average"])
        optimizer.load_state_dict(saved_state["optimizer"])
        step, spent, log = saved_state["step"], saved_state["spent"], saved_state["log"]
    losses: list[float] = []
    last_save = tick = time.monotonic()
    while spent < 60 * until:
        share = spent / (60 * minutes)
        rng = torch_generator(seed, step, 0, "pretrain")
        pick = torch.randint(len(latents), (batch,), generator=rng)
        drop = torch.rand(batch, generator=rng) < caption_dropout
        z1 = torch.randn(batch, *latents.shape[1:], generator=rng)
        u = torch.sigmoid(torch.randn(batch, generator=rng))
        words_of = torch.where(drop, len(rows) - 1, pick)
        sigma = flow.shift_time(u, SHIFT)
        z0 = latents[pick]
        embeds, pooled = text.encode(clip_ids[words_of], t5_ids[words_of], encoders)
        velocity = transformer(
            hidden_states=flow.interpolate(z0, z1, sigma),
            encoder_hidden_states=embeds,
            pooled_projections=pooled,
            timestep=1000 * sigma,
            return_dict=False,
        )[0]
        loss = flow.velocity_error(velocity, z1 - z0).mean()
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 300) * max(min(1.0, (1 - share) / decay_share), 0.02)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(model)
        step += 1
        losses.append(loss.item())
        now = time.monotonic()
        spent, tick = spent + now - tick, now
        if step % 100 == 0:
            log.append({"step": step, "seconds": round(spent, 1), "loss": sum(losses) / len(losses)})
            print(log[-1], flush=True)
            losses = []
        if now - last_save > 240 or spent >= 60 * until:
            states = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            saved.save({**states, "step": step, "spent": spent, "log": log}, state)
            last_save = time.monotonic()
    (work / "training_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return cast(_Model, average.module)


def assemble(model: _Model, vae: AutoencoderKL, words: Sequence[str]) -> StableDiffusion3Pipeline:
    """A complete SD3 pipeline around trained parts."""
    clip, t5 = text.make_clip_tokenizer(words), text.make_t5_tokenizer(words)
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
