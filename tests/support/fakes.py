"""A world of a few kilobytes: a random SD3 pipeline, a corpus, a suite, a metric and methods that take milliseconds."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch

from bench import registry
from bench.backbone.loader import Backbone, BackboneSpec, TextCondition
from bench.batches import Pairs
from bench.check.world import (  # noqa: F401 - tests have some of them from here
    CAPTIONS,
    LEDGERS,
    RESOLUTION,
    TRANSFORMER,
    VAE,
    Brightness,
    advance,
    same,
    weights,
)
from bench.corpus import Corpus, Subset
from bench.evaluation import Evaluator
from bench.experiment.loop import JobRun
from bench.experiment.session import Session
from bench.job import Job
from bench.machine.engine import Compute, Engine
from bench.method import MethodConfig, Needs, PostTrainingMethod, Traits
from bench.metric import Metric
from bench.records import digest
from bench.suite import Prompt, PromptSet, Sampler, Suite
from bench.training.budget import Budget
from bench.training.data import Preferences, TrainingData
from bench.training.learner import Learner


def make_pipeline(folder: Path) -> None:
    """Save a StableDiffusion3Pipeline with random weights: 16 px pictures, 4 x 4 latents, width 32."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    from bench.backbone.pretrain.text import make_clip_tokenizer, make_t5_tokenizer, make_text_encoders

    words = sorted({word for caption in CAPTIONS for word in caption.split()})
    clip, t5 = make_clip_tokenizer(words), make_t5_tokenizer(words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one, two, three = make_text_encoders(clip, t5, clip_width=16, t5_width=32)
        vae = AutoencoderKL(**VAE)
        pipeline = StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(**TRANSFORMER),
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
            vae=vae,
            text_encoder=one,
            tokenizer=clip,
            text_encoder_2=two,
            tokenizer_2=clip,
            text_encoder_3=three,
            tokenizer_3=t5,
        )
    pipeline.save_pretrained(folder)


def spec(folder: Path) -> BackboneSpec:
    return BackboneSpec("fake", str(folder), 12, RESOLUTION, "embedded")


class FakeCorpus(Corpus):
    """Twelve pairs of noise pictures and five captions."""

    name = "fake"
    quantiles: Mapping[str, float] = {"half": 0.5}

    def __init__(self, cache: Path | None = None, size: int = 12) -> None:
        self.pictures = np.random.default_rng(0).integers(0, 256, (size, RESOLUTION, RESOLUTION, 3), np.uint8)

    def __len__(self) -> int:
        return len(self.pictures)

    def caption(self, index: int) -> str:
        return CAPTIONS[index % len(CAPTIONS)]

    def image(self, index: int) -> np.ndarray:
        return self.pictures[index]

    @property
    def fingerprint(self) -> str:
        return digest({"fake": len(self), "pixels": int(self.pictures.sum())})


def suite() -> Suite:
    return Suite(
        name="fake",
        version=1,
        prompt_sets=(
            PromptSet("some", tuple(Prompt(str(i), text) for i, text in enumerate(CAPTIONS[:2])), 2, ("brightness",)),
        ),
        sampler=Sampler(steps=2, guidance_scale=2.0, resolution=RESOLUTION),
        seed=7,
        roles={"aesthetic": "brightness"},
        notice="Noise pictures.",
    )


HALF = Subset("half", role="aesthetic", threshold=0.4)
TRAITS = Traits(*["-"] * 8)


PIPELINES = ("sft+flow_grpo", "flow_grpo+soar")


class NoConfig(MethodConfig):
    pass


class NaNLoss(PostTrainingMethod):
    """Breaks at its third step."""

    Config, needs, traits = NoConfig, Needs(pairs=True), TRAITS

    def setup(self, job: Job) -> None:
        job.train_full(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0)

    def step(self, job: Job) -> None:
        for pairs in job.pairs(2):
            loss = job.policy.velocity(pairs.latents, 0.5, pairs.text).pow(2).mean()
            job.accumulate(loss * float("nan") if job.step == 2 else loss, 1)
        job.update()


class Growing(NaNLoss):
    """Step i costs i + 1 forwards, as Flow-GRPO's does when more samples keep an advantage."""

    def step(self, job: Job) -> None:
        for pairs in job.pairs(2 * (job.step + 1)):
            job.accumulate(job.policy.velocity(pairs.latents, 0.5, pairs.text).pow(2).mean(), 1)
        job.update()


class Leaping(NaNLoss):
    """Its third step costs eight of the first."""

    def step(self, job: Job) -> None:
        for pairs in job.pairs(16 if job.step == 2 else 2):
            job.accumulate(job.policy.velocity(pairs.latents, 0.5, pairs.text).pow(2).mean(), 1)
        job.update()


ENTRIES = {
    "methods": {"nan": "fakes:NaNLoss", "growing": "fakes:Growing"},
    "suites": {"fake": "fakes:suite"},
    "subsets": {"half": "fakes:HALF"},
    "metrics": {"brightness": "fakes:Brightness"},
    "corpora": {"fake": "fakes:FakeCorpus"},
}


@contextmanager
def registered(backbone: Backbone) -> Iterator[None]:
    """Inside, the registry knows the fakes; the backbone is called ``fake``."""
    global SPEC
    SPEC = backbone.spec
    with pytest.MonkeyPatch.context() as patch:
        for kind, entries in (ENTRIES | {"backbones": {"fake": "fakes:SPEC"}}).items():
            patch.setitem(registry.BUILT_IN, kind, registry.BUILT_IN[kind] | entries)
        registry.table.cache_clear()
        yield
    registry.table.cache_clear()


SPEC: BackboneSpec


class Places(Brightness):
    """A reward that says how many images were scored before, whatever they show.

    For what is compared closely: batches of another size round otherwise, a pixel then falls on the other side now and
    then, and where brightness is the reward this moves every advantage of a group by a thousandth.
    """

    def __init__(self) -> None:
        self.scored = 0

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        self.scored += len(images)
        return [float(i) for i in range(self.scored - len(images), self.scored)]


class Turns(Brightness):
    """A reward that says which of a group of three an image is: as blind as ``Places``, and alike on every process."""

    def __init__(self) -> None:
        self.scored: Counter[str] = Counter()

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        found = []
        for prompt in prompts:
            found.append(float(self.scored[prompt.text] % 3))
            self.scored[prompt.text] += 1
        return found


KEPT: WeakKeyDictionary[Job, dict[str, Any]] = WeakKeyDictionary()
"""The rest of each job's session, which goes when the job goes."""


def session_of(job: Job) -> Session:
    """What the harness holds of a job of this world."""
    return Session(job=job, **KEPT[job])


def learner(job: Job) -> Learner:
    """What trains of a job of this world, after the method's setup."""
    found = session_of(job).model.learner
    assert found is not None
    return found


def finish_step(job: Job) -> dict[str, float]:
    """Close a step of a job of this world; returns what was logged."""
    return LEDGERS[job].finish_step(seconds=0, memory=0)


class World:
    """Everything that jobs share, made once per session."""

    def __init__(self, folder: Path, engine: Engine | None = None) -> None:
        self.engine = engine or Engine()
        self.backbone = Backbone(spec(folder), self.engine)
        corpus = FakeCorpus()
        latents = self.backbone.encode_images(np.stack([corpus.image(i) for i in range(len(corpus))]))
        self.data = TrainingData(
            latents=latents,
            shapes=torch.tensor(latents.shape[1:]).expand(len(latents), 3),
            text=self.backbone.encode_prompts(CAPTIONS),
            prompts=tuple(Prompt(str(i), text) for i, text in enumerate(CAPTIONS)),
            text_of=torch.tensor([i % len(CAPTIONS) for i in range(len(corpus))]),
        )
        twice = [[i, i + len(CAPTIONS)] for i in range(len(CAPTIONS))]  # two pictures of each caption
        self.data = replace(self.data, preferences=Preferences(self.data, torch.tensor(twice)))
        self.null = self.backbone.encode_prompts([""])
        self.evaluator = Evaluator(suite(), self.backbone, {"brightness": Brightness()}, self.engine)
        self._held = ExitStack()
        self._held.enter_context(self.backbone.vae_loaded())  # as a run does; loading it takes longer than a step
        gc.freeze()  # collections, of which each job makes some, need not walk all that was imported

    def session(
        self,
        *,
        seed: int = 0,
        reward: Metric | None = None,
        data: TrainingData | None = None,
        micro_batch: int | None = None,
        **compute: Any,
    ) -> Session:
        """A fresh session; it rewards by brightness unless told otherwise."""
        session = Session.of(
            backbone=self.backbone,
            null=self.null,
            data=data or self.data,
            seed=seed,
            reward=reward or Brightness(),
            engine=self.engine,
            compute=Compute(micro_batch=micro_batch, **compute),
        )
        kept = {field.name: getattr(session, field.name) for field in fields(Session) if field.name != "job"}
        LEDGERS[session.job], KEPT[session.job] = session.ledger, kept
        return session

    def job(self, **options: Any) -> Job:
        """The job of a fresh ``session``."""
        return self.session(**options).job

    def text(self, count: int) -> TextCondition:
        return self.data.text[torch.arange(count) % len(CAPTIONS)]


TINY_GRPO = dict(prompts=2, group_size=3, sampling_steps=3, lora_rank=2, lora_alpha=4, lr=1e-2, ema_every=1)
"""Overrides with which Flow-GRPO takes two updates in milliseconds."""


def small(name: str, **overrides: Any) -> PostTrainingMethod:
    """A method of the registry, configured for the tiny pipeline."""
    method = registry.load("methods", name)
    lora = "lora_rank" in method.Config.model_fields
    tiny = TINY_GRPO | {"batch_size": 4, "lr": 1e-2 if lora else 1e-3}
    tiny = {key: value for key, value in tiny.items() if key in method.Config.model_fields}
    if not lora:  # adapters alone keep an average in the tests
        tiny.pop("ema_every", None)
    result: PostTrainingMethod = method(method.Config(**(tiny | overrides)))
    return result


def job_run(
    world: World, folder: Path, row: str, budget: str, fractions: tuple[float, ...], **overrides: Any
) -> JobRun:
    """A job of a row such as ``sft`` or ``sft+flow_grpo``, whose stages have equal shares of the budget."""
    first, *later = row.split("+")
    then = tuple((small(name, **overrides), (i + 1) / (1 + len(later))) for i, name in enumerate(later))
    session, method = world.session(), small(first, **overrides)
    return JobRun(folder, method, session, Budget.parse(budget), fractions, world.evaluator, then=then)


def rows(count: int, shape: tuple[int, ...] = (4, 4, 4)) -> Pairs:
    """A batch of rows for draws, without pictures or captions."""
    return Pairs(
        torch.zeros(count, *shape),
        TextCondition(torch.zeros(count, 0), torch.zeros(count, 0)),
        torch.arange(count),
        torch.arange(count),
    )


def take(job: Job, count: int) -> Pairs:
    """The first micro-batch of a step's pairs: all of them, without a micro-batch size."""
    (pairs,) = job.pairs(count)
    return pairs
