"""The recipe of the embedded backbone as `bench pretrain` runs it, with the values that made the shipped weights."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from bench import registry
from bench.records import saved

PAIRS, SEED = 40_000, 0
"""Scenes of the pretraining corpus, and its seed; the corpus that methods train on has another."""


def corpus(out: Path) -> Any:
    """The pretraining corpus, rendered into ``out`` once."""
    return registry.load("corpora", "world")(out, size=PAIRS, seed=SEED)


def captions_and_words(world: Any) -> tuple[list[str], list[str]]:
    """Captions by pair, and the words that become tokens: all but those in quotes, which are spelled."""
    captions = [world.caption(i) for i in range(len(world))]
    return captions, sorted({word for caption in captions for word in caption.split() if '"' not in word})


def vae(out: Path, minutes: float | None) -> None:
    """Stage 1: the VAE, 11 minutes on two cores."""
    from bench.backbone.pretrain.vae import train_vae

    train_vae(corpus(out).images, out / "vae", minutes=minutes or 11)


def policy(out: Path, minutes: float | None) -> None:
    """Stage 2: transformer and text encoders, 53 minutes on two cores; leaves a whole pipeline in ``out/tiny_sd3``.

    The schedule is one of 80 minutes, stopped at 53: a base that is finished leaves post-training nothing to improve.
    """
    from diffusers import AutoencoderKL

    from bench.backbone.loader import encode_images
    from bench.backbone.pretrain.policy import assemble, train_policy

    world = corpus(out)
    captions, words = captions_and_words(world)
    autoencoder = AutoencoderKL.from_pretrained(out / "vae").eval()
    weights = (out / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    cache = out / f"latents-{hashlib.sha256(weights).hexdigest()[:16]}.pt"  # a VAE trained anew has other latents
    if not cache.exists():
        saved.save(encode_images(autoencoder, world.images), cache)
    latents = saved.load(cache, "delete it and run the same command")
    work = out / "policy"
    work.mkdir(exist_ok=True)
    model = train_policy(latents, captions, words, work, minutes=80, until=minutes or 53, compiled=True)
    autoencoder.register_to_config(_name_or_path="")  # not a path of the machine that trained it
    assemble(model, autoencoder, words).save_pretrained(out / "tiny_sd3")
    for part, trained in (("vae", out / "vae"), ("transformer", work)):
        shutil.copy(trained / "training_log.jsonl", out / "tiny_sd3" / part)
