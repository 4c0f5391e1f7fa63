"""The world that methods are checked in: a random SD3 pipeline for 16 px pictures. A step takes milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.backbone.loader import Backbone, BackboneSpec
from bench.check.ranks import RankEngine
from bench.experiment.session import Session
from bench.job import Job
from bench.machine.engine import Compute, Engine
from bench.method import Needs, PostTrainingMethod
from bench.metric import Metric
from bench.prompt import Prompt
from bench.rng import torch_generator
from bench.training.data import Preferences, TrainingData
from bench.training.ledger import Ledger

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

RESOLUTION = 16
CAPTIONS = ("a red circle", "a blue square", "a red square", "a blue circle", "two red squares")
PAIRS = 12
TOKENS = 8
WIDTH = 32
TRANSFORMER = dict(
    sample_size=4,
    patch_size=2,
    in_channels=4,
    out_channels=4,
    num_layers=2,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=WIDTH,
    caption_projection_dim=WIDTH,
    pooled_projection_dim=WIDTH,
    pos_embed_max_size=4,
    dual_attention_layers=(0,),
    qk_norm="rms_norm",
)
VAE = dict(
    block_out_channels=(8, 8, 8),
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    latent_channels=4,
    norm_num_groups=4,
    mid_block_add_attention=False,
    use_quant_conv=False,
    use_post_quant_conv=False,
    sample_size=RESOLUTION,
    shift_factor=0.1,
    scaling_factor=1.5,
)


LEDGERS: WeakKeyDictionary[Job, Ledger] = WeakKeyDictionary()
"""What ``advance`` closes a step with, for as long as the job lives."""


class TinyBackbone(Backbone):
    """Random weights, the same ones each time, that lie in no file. It encodes no text and no pictures."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.spec = BackboneSpec("check", "", TOKENS, RESOLUTION, "embedded")

    def _config(self, part: str) -> dict[str, Any]:
        return VAE

    def transformer(self) -> SD3Transformer2DModel:
        from diffusers import SD3Transformer2DModel

        with _seeded(1):
            return SD3Transformer2DModel(**TRANSFORMER).eval()

    def scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        from diffusers import FlowMatchEulerDiscreteScheduler

        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)

    @contextmanager
    def vae_loaded(self) -> Iterator[AutoencoderKL]:
        yield self._decoder

    @cached_property
    def _decoder(self) -> AutoencoderKL:
        from diffusers import AutoencoderKL

        with _seeded(2):
            return AutoencoderKL(**VAE).eval().requires_grad_(False)


class Brightness(Metric):
    """Mean pixel in [0, 1]."""

    name, label, version = "brightness", "Brightness", 1
    differentiable = True

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [float(image.mean() / 255) for image in images]

    def differentiable_score(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return pixels.mean((1, 2, 3))


class World:
    """What jobs share: the backbone, twelve pairs under five captions, and preferences among them."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.backbone = TinyBackbone(self.engine)
        self.null = _text(1, "null")
        captions = torch.arange(PAIRS) % len(CAPTIONS)
        shape = self.backbone.latent_shape
        pictures = TrainingData(
            latents=torch.randn(PAIRS, *shape, generator=torch_generator("check", "latents")),
            shapes=torch.tensor(shape).expand(PAIRS, 3),
            text=_text(len(CAPTIONS), "captions"),
            prompts=tuple(Prompt(str(i), text) for i, text in enumerate(CAPTIONS)),
            text_of=captions,
        )
        order = [(i, j) for i in range(PAIRS) for j in range(i + 1, PAIRS) if captions[i] == captions[j]]
        self.data = replace(pictures, preferences=Preferences(pictures, torch.tensor(order)))

    def session(
        self, needs: Needs, *, seed: int = 0, micro_batch: int | None = None, engine: RankEngine | None = None
    ) -> Session:
        """A fresh session that gives just what was declared, of one process or of ``engine``'s rank."""
        session = Session.of(
            backbone=self.backbone,
            null=self.null,
            data=self.data,
            seed=seed,
            reward=Brightness(),
            engine=engine or self.engine,
            compute=Compute(micro_batch=micro_batch),
        )
        session.grant(needs)
        LEDGERS[session.job] = session.ledger
        return session

    def job(
        self, needs: Needs, *, seed: int = 0, micro_batch: int | None = None, engine: RankEngine | None = None
    ) -> Job:
        """The job of a fresh ``session``."""
        return self.session(needs, seed=seed, micro_batch=micro_batch, engine=engine).job


def advance(job: Job, method: PostTrainingMethod, steps: int = 1) -> list[dict[str, float]]:
    """Steps as the loop takes them, of a job of this world; returns what each logged."""
    logs = []
    for _ in range(steps):
        method.step(job)
        logs.append(LEDGERS[job].finish_step(seconds=1.0, memory=1))
    return logs


def weights(job: Job) -> list[Tensor]:
    """Copies of what trains."""
    return [p.detach().clone() for p in job.parameters]


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """True if all tensors are equal bit for bit."""
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _text(count: int, stream: str) -> TextCondition:
    draw = torch_generator("check", stream)
    return TextCondition(torch.randn(count, TOKENS, WIDTH, generator=draw), torch.randn(count, WIDTH, generator=draw))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random weights that leave the caller's random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
