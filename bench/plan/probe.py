"""What a method spends in one step, found by letting it take one: on a model of a few thousand weights, with its real
configuration, through the metered doors of a job. So a plan knows no method by name, and a plugin's cost is as exact as
a built-in's.

Counts (forwards, backwards, images, reward calls) do not depend on the model. What a forward and a backward cost does,
and on which weights train: it is counted on the real architecture on the meta device, after the method's own ``setup``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bench.backbone.condition import TextCondition
from bench.errors import BenchError
from bench.experiment.session import Session
from bench.flops import Flops, reference_cost, transformer_cost
from bench.job import Job
from bench.machine.engine import Compute, Engine
from bench.method import PostTrainingMethod
from bench.metric import Metric
from bench.plan.architecture import Architecture
from bench.prompt import Prompt
from bench.training.data import Preferences, TrainingData

PAIRS = 8
"""Pairs of the stand-in corpus. A batch that wants more goes round it."""
LATENTS = (4, 2, 2)
WIDTH = 8
TINY = dict(
    sample_size=2,
    patch_size=2,
    in_channels=4,
    out_channels=4,
    num_layers=2,  # the last block of an SD3 transformer lacks some of the layers that adapters name
    attention_head_dim=WIDTH,
    num_attention_heads=1,
    joint_attention_dim=WIDTH,
    caption_projection_dim=WIDTH,
    pooled_projection_dim=WIDTH,
    pos_embed_max_size=2,
    dual_attention_layers=(0,),
    qk_norm="rms_norm",
)
"""One image token and one text token: a batch of 2,304 takes milliseconds."""
ENOUGH = 96
"""Forwards with a graph after which the number of samples in graphs at once is taken as known."""


@dataclass(frozen=True)
class Step:
    """One iteration. Samples whose advantage is zero cost less in truth: the stand-in reward makes none.

    Attributes:
        forwards, reference_forwards, backwards: in samples, as the meter counts them.
        graph_samples: most samples at once of which a process keeps activations for a backward.
    """

    forwards: int
    reference_forwards: int
    backwards: int
    images: int
    reward_calls: int
    updates: int
    graph_samples: int


@dataclass(frozen=True)
class Trained:
    """What a method trains of an architecture.

    Attributes:
        cost: FLOPs per sample.
        reference: FLOPs of a forward without the adapter, where there is one.
        trained, frozen: parameters.
        copies: bytes of averages and other copies that the method or the job keeps of them.
    """

    cost: Flops
    reference: int
    trained: int
    frozen: int
    copies: int


def one_step(method: PostTrainingMethod, micro_batch: int | None, processes: int = 1) -> Step:
    """Let a method take one step and read the meter.

    Args:
        micro_batch: samples per forward with a graph; None: a process's whole share.
        processes: that share the batch.

    Raises:
        BenchError: the method does not run on the stand-in.
    """
    try:
        with _quiet_randomness():
            whole, alive = _run(method, None, limit=None)
            alive = math.ceil(alive / processes)
            if micro_batch is not None:
                alive = min(alive, _run(method, micro_batch, limit=ENOUGH)[1])
    except Exception as error:
        raise BenchError(f"a step could not be tried: {type(error).__name__}: {error}") from error
    seen = whole.meter
    return Step(
        forwards=seen.forwards,
        reference_forwards=seen.reference_forwards,
        backwards=seen.backwards,
        images=seen.images,
        reward_calls=seen.reward_calls,
        updates=max(seen.updates, 1),
        graph_samples=alive,
    )


def what_trains(method: PostTrainingMethod, architecture: Architecture, *, low: bool) -> Trained:
    """Let a method choose what trains of the real architecture, none of whose weights take memory.

    Args:
        low: matrix products are in bfloat16, and so are weights that do not train.

    Raises:
        BenchError: the method's ``setup`` needs more than a model.
    """
    shape, engine = architecture.latent_shape(), Engine(device="meta", dtype=torch.bfloat16 if low else torch.float32)
    try:
        session = _session(_Empty(architecture), Compute(), engine)
        method.setup(session.job)
    except Exception as error:
        raise BenchError(f"what trains could not be found: {type(error).__name__}: {error}") from error
    transformer = session.job.policy.transformer.float()
    like = transformer, shape, architecture.text_tokens
    adapted = bool(getattr(transformer, "peft_config", None))
    trained = sum(p.numel() for p in transformer.parameters() if p.requires_grad)
    return Trained(
        cost=transformer_cost(*like),
        reference=(reference_cost if adapted else transformer_cost)(*like).forward,
        trained=trained,
        frozen=sum(p.numel() for p in transformer.parameters()) - trained,
        copies=_bytes(session.state_dict()["ema"]) + _bytes(method.state_dict()),
    )


class _Enough(Exception):
    """Nothing more is to be learned from this step."""


def _run(method: PostTrainingMethod, micro_batch: int | None, limit: int | None) -> tuple[Job, int]:
    """One step on the stand-in: the job after it, and the most samples in graphs at once."""
    graphs = _Graphs(limit)
    method = type(method)(method.config)
    session = _session(_Tiny(graphs), Compute(micro_batch=micro_batch), Engine())
    try:
        method.setup(session.job)
        method.step(session.job)
    except _Enough:
        pass
    finally:
        session.close()
    return session.job, graphs.most


def _session(backbone: Any, compute: Compute, engine: Engine) -> Session:
    """A session on stand-ins with every door open, to count what a method does."""
    text = TextCondition(torch.zeros(PAIRS, 1, WIDTH), torch.zeros(PAIRS, WIDTH))
    data = TrainingData(
        latents=torch.zeros(PAIRS, *LATENTS),
        shapes=torch.tensor([LATENTS] * PAIRS),
        text=text,
        prompts=tuple(Prompt(str(i), f"prompt {i}") for i in range(PAIRS)),
        text_of=torch.arange(PAIRS),
    )
    data = replace(data, preferences=Preferences(data, torch.arange(PAIRS).view(-1, 2)))
    return Session.of(
        backbone=backbone,
        null=text[:1],
        data=data,
        seed=0,
        reward=_AnyReward(),
        engine=engine,
        compute=compute,
    )


class _Graphs:
    """Counts the samples that are in graphs."""

    def __init__(self, limit: int | None) -> None:
        self.limit, self.alive, self.most, self.seen = limit, 0, 0, 0

    def __call__(self, module: Any, inputs: Any, output: Any) -> None:
        if not output[0].requires_grad:
            return
        if self.seen == self.limit:
            raise _Enough
        samples = len(output[0])
        self.seen, self.alive = self.seen + 1, self.alive + samples
        self.most = max(self.most, self.alive)
        output[0].register_hook(lambda gradient: self._freed(samples))

    def _freed(self, samples: int) -> None:
        self.alive -= samples


class _Tiny:
    """A backbone with just enough of a model to call."""

    latent_shape = LATENTS

    def __init__(self, graphs: _Graphs) -> None:
        self._graphs = graphs

    def latent_shape_of(self, width: int, height: int) -> tuple[int, int, int]:
        return LATENTS

    def transformer(self) -> Any:
        from diffusers import SD3Transformer2DModel

        model = SD3Transformer2DModel(**TINY).eval()
        model.register_forward_hook(self._graphs)
        return model

    def scheduler(self) -> Any:
        return _scheduler()

    @contextmanager
    def vae_loaded(self) -> Iterator[torch.nn.Module]:
        yield _NoVAE()

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        return np.zeros((len(latents), 2, 2, 3), np.uint8)

    def decode_with_gradient(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[:, :3]


class _Empty(_Tiny):
    """A backbone whose transformer is the real one on the meta device."""

    def __init__(self, architecture: Architecture) -> None:
        self._architecture = architecture

    def transformer(self) -> Any:
        return self._architecture.empty_transformer()


class _NoVAE(torch.nn.Module):
    def decode(self, latents: torch.Tensor) -> Any:
        from diffusers.models.autoencoders.vae import DecoderOutput

        return DecoderOutput(latents)


class _AnyReward(Metric):
    """Scores that all differ."""

    name, label, version = "any", "any", 1

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [float(score) for score in np.random.default_rng(0).random(len(images))]

    def differentiable_score(self, pixels: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        return pixels.flatten(1).mean(1)


def _scheduler() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)


def _bytes(state: Any) -> int:
    """Size of all tensors in a state."""
    match state:
        case torch.Tensor():
            return state.numel() * state.element_size()
        case Mapping():
            return sum(_bytes(part) for part in state.values())
        case list() | tuple():
            return sum(_bytes(part) for part in state)
    return 0


@contextmanager
def _quiet_randomness() -> Iterator[None]:
    """The stand-in's random weights leave the caller's random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
