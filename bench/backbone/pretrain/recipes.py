"""The recipe of the embedded backbone as `bench pretrain` runs it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from bench import registry
from bench.errors import BenchError
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


def vae(out: Path, steps: int | None, device: str) -> None:
    """Stage 1: the VAE; leaves ``out/vae``."""
    from bench.backbone.pretrain.vae import STEPS, train_vae

    train_vae(corpus(out).images, out / "vae", out / "vae" / "state.pt", steps=steps or STEPS, device=device)


def policy(out: Path, steps: int | None, device: str) -> None:
    """Stage 2: transformer and text encoders; leaves a whole pipeline in ``out/tiny_sd3``."""
    from diffusers import AutoencoderKL

    from bench.backbone.loader import encode_images
    from bench.backbone.pretrain.policy import RESTART, STEPS, assemble, train_policy

    weights = out / "vae" / "diffusion_pytorch_model.safetensors"
    if not weights.exists():
        raise BenchError(f"{weights} is not there; run `bench pretrain --stage vae` first")
    world = corpus(out)
    captions, words = captions_and_words(world)
    autoencoder = AutoencoderKL.from_pretrained(out / "vae").eval()
    # Another VAE has other latents, and so has another corpus.
    key = hashlib.sha256(weights.read_bytes() + world.fingerprint.encode()).hexdigest()[:16]
    cache = out / f"latents-{key}.pt"
    if not cache.exists():
        saved.save(encode_images(autoencoder.to(device), world.images), cache)
        autoencoder.to("cpu")
    latents = saved.load(cache, "delete it and run the same command")
    work = out / "policy"
    length, restart = (steps, 0) if steps else (STEPS, RESTART)  # another number of steps has one cycle
    model = train_policy(latents, captions, words, work, steps=length, restart=restart, device=device, compiled=True)
    autoencoder.register_to_config(_name_or_path="")  # not a path of the machine that trained it
    assemble(model.to("cpu"), autoencoder, work).save_pretrained(out / "tiny_sd3")
    for part, trained in (("vae", out / "vae"), ("transformer", work)):
        shutil.copy(trained / "training_log.jsonl", out / "tiny_sd3" / part)
    shutil.copy(work / "token_ids.json", out / "tiny_sd3")
