"""Recipe of the embedded suite's judge: a small CLIP trained on the world, and an aesthetic head on its embedding.

Like web alt-text and unlike the captions that generators train on, most of CLIP's captions name the style, so that its
embedding holds style and the head has something to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from bench.backbone.loader import to_tensor
from bench.backbone.pretrain.text import id_table, kept_tokenizer, make_clip_tokenizer, token_ids
from bench.backbone.pretrain.training import Schedule, content, initial_weights, train, write_log
from bench.records import digest

MAX_TOKENS = 16
STYLES = ("flat", "plain", "soft", "shaded", "glossy", "radiant")
"""Names of the six equal ranges of the style factor."""

NAMED = 0.7
"""Share of captions that name the style."""

STEPS = 2400
"""Of the recipe."""


def make_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained CLIP: 64 px pictures in 8 px patches, 3 layers of width 96 in each tower."""
    tower = dict(hidden_size=96, intermediate_size=384, num_hidden_layers=3, num_attention_heads=3)
    special = dict(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPModel(
        CLIPConfig(
            text_config=dict(vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS, **tower, **special),
            vision_config=dict(image_size=64, patch_size=8, **tower),
            projection_dim=96,
        )
    )


def train_clip(
    images: np.ndarray,
    captions: Sequence[str],
    styles: np.ndarray,
    words: Sequence[str],
    out: Path,
    state: Path,
    *,
    steps: int = STEPS,
    device: str = "cpu",
    batch: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
) -> None:
    """Contrastive training for ``steps``, then the head by ridge regression; both saved to ``out``.

    Resumes from ``state``. Pictures of the same caption are positives of each other. The head predicts 10 x style from
    the L2-normalised image embedding, a scale of 0 to 10 like that of the LAION aesthetic predictor. The last line of
    the log has its R² on the last 5 % of the pictures, which neither was fitted to.
    """
    made = None if state.exists() else partial(_make_tokenizer, words)
    tokenizer = kept_tokenizer(CLIPTokenizer, out, made)
    with initial_weights(seed, "clip"):
        model = make_clip(tokenizer).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.05)
    train_share = int(0.95 * len(images))

    def loss_of(rng: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with torch.no_grad():
            model.logit_scale.clamp_(max=np.log(100.0))
        pick = torch.randint(train_share, (batch,), generator=rng).numpy()
        named = torch.rand(batch, generator=rng).numpy() < NAMED
        texts = [
            captions[i] + (" " + STYLES[min(int(len(STYLES) * styles[i]), len(STYLES) - 1)] if name else "")
            for i, name in zip(pick, named, strict=True)
        ]
        ids, pixels = token_ids(tokenizer, texts, MAX_TOKENS).to(device), to_tensor(images[pick]).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            scores = model(input_ids=ids, pixel_values=pixels).logits_per_text.float()
        _, same = np.unique(texts, return_inverse=True)
        target = torch.from_numpy((same[:, None] == same[None]).astype(np.float32)).to(device)
        target = target / target.sum(1, keepdim=True)
        loss = 0.5 * (
            torch.nn.functional.cross_entropy(scores, target) + torch.nn.functional.cross_entropy(scores.T, target)
        )
        return loss, {"logit_scale": model.logit_scale.detach().exp()}

    model, log = train(
        model,
        optimizer,
        loss_of,
        Schedule(steps, lr, warm_up=50, decay_share=1.0),
        state,
        stage="clip",
        seed=seed,
        identity={
            "model": model.config.to_json_string(),
            "images": content(images),
            "captions": digest(list(captions)),
            "styles": digest([float(style) for style in styles]),
            "words": digest(sorted(set(words))),
            "token_ids": digest(id_table({"tokenizer": tokenizer}, [*words, *STYLES])),
            "batch": batch,
            "named": NAMED,
        },
    )
    model.eval().to("cpu")
    model.save_pretrained(out)
    embeds = torch.cat([image_embeds(model, images[i : i + 512]) for i in range(0, len(images), 512)]).double()
    target10 = 10 * torch.from_numpy(np.asarray(styles, np.float64))
    design = torch.cat([embeds[:train_share], torch.ones(train_share, 1, dtype=torch.float64)], 1)
    gram = design.T @ design + 1e-3 * torch.eye(design.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, design.T @ target10[:train_share])
    save_file(
        {"weight": solution[None, :-1].float().contiguous(), "bias": solution[-1:].float().contiguous()},
        out / "aesthetic_head.safetensors",
    )
    residual = embeds[train_share:] @ solution[:-1] + solution[-1] - target10[train_share:]
    log.append({"head_r2": 1 - (residual.var() / target10[train_share:].var()).item()})
    print(log[-1])
    write_log(log, out)


def _make_tokenizer(words: Sequence[str]) -> CLIPTokenizer:
    tokenizer = make_clip_tokenizer([*words, *STYLES])
    tokenizer.model_max_length = MAX_TOKENS
    return tokenizer


@torch.no_grad()
def image_embeds(model: CLIPModel, images: np.ndarray) -> torch.Tensor:
    """L2-normalised embeddings (N, 96) of uint8 (N, H, W, 3) pictures."""
    return pixel_embeds(model, to_tensor(images))


def pixel_embeds(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """L2-normalised embeddings (N, 96) of pictures (N, 3, H, W) in [-1, 1]."""
    embeds = model.get_image_features(pixel_values=pixels)
    embeds = getattr(embeds, "pooler_output", embeds)
    return torch.nn.functional.normalize(embeds, dim=-1)


def recipe(out: Path, steps: int | None, device: str) -> None:
    """The judge's stage of `bench pretrain`; leaves ``out/clip``."""
    from bench.backbone.pretrain.recipes import captions_and_words, corpus

    world = corpus(out)
    captions, words = captions_and_words(world)
    styles = np.array([row["style"] for row in world.rows])
    state = out / "clip-state.pt"  # all that lies in the folder ships
    train_clip(world.images, captions, styles, words, out / "clip", state, steps=steps or STEPS, device=device)
