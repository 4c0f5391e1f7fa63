"""A job: one method on one subset with one seed, and the metered doors through which the method works."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.backbone.ahead import AheadText
from bench.backbone.loader import Backbone, TextCondition
from bench.backbone.loading import load_transformer
from bench.backbone.policy import Policy
from bench.batches import Pairs, Part, PreferencePairs, PromptBatch, Rows, Shape, deal_shares
from bench.data import TrainingData
from bench.engine import Compute, Engine, whole
from bench.errors import JobFailure, Undeclared
from bench.feed import Feed
from bench.flops import Cost, decode_cost, meta_twin, reference_cost, transformer_cost
from bench.learner import Learner
from bench.levels import DIFFUSERS
from bench.meter import Meter
from bench.reward import Reward
from bench.rng import torch_generator
from bench.suite import Prompt
from bench.weights import save_weights, with_adapter

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

    from bench.method import Needs
    from bench.metric import Metric

METERED = ("flops", "forwards", "reference_forwards", "backwards", "images", "reward_calls", "pairs")
"""Counts to which each process adds its part; steps and updates are the same on all of them."""


class Job:
    """The only door to data, models, rewards and randomness. A method sees nothing else.

    A step works on a *global* batch. Each process gets its share of it in micro-batches; gradients are summed over all
    of them and divided by the number of items they stand for. So a method is written as if there were one process.

    Attributes:
        policy: the model being trained, as a velocity field.
        meter: what has been spent, by all processes together.
        step: index of the current iteration, from 0.
        device: where tensors live.
        learner: what trains; None before ``train_full`` or ``train_lora``.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        null: TextCondition,
        data: TrainingData,
        seed: int,
        reward: Metric | None = None,
        engine: Engine | None = None,
        compute: Compute | None = None,
        levels: str = DIFFUSERS,
    ) -> None:
        self.engine, self.compute = engine or Engine(), compute or Compute()
        self.device = self.engine.device
        self.seed, self.step = seed, 0
        self.meter = Meter()
        self.latent_shape: Shape = backbone.latent_shape
        self._backbone, self._null, self._levels = backbone, null, levels
        self._given, self._feed = data, Feed(data, seed, self.engine.rank, self.engine.world_size)
        self._scored = self._reward = Reward(reward, self.engine) if reward else None
        self._traced = True  # whether the reward may be asked for its gradient
        self._started_from: Path | None = None
        transformer = backbone.transformer()
        self._pretrained = transformer.config.get("_name_or_path")
        self._begin(transformer)
        self._decode_cost: Cost | None = None
        self._part_size = 1
        self._padding = False
        self._logged: dict[str, tuple[Tensor | float, float]] = {}
        self._synced = self.meter.counts()

    def _begin(self, transformer: SD3Transformer2DModel) -> None:
        """Nothing trains yet."""
        transformer.requires_grad_(False)
        scheduler = self._backbone.scheduler()
        self.policy = Policy(transformer, scheduler, self._null, self.engine, self._charge_forward, self._levels)
        self.learner: Learner | None = None
        self._twin: SD3Transformer2DModel | None = None
        self._costs: dict[tuple[Shape, bool], Cost] = {}

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What trains, in a fixed order."""
        return self.learner.parameters if self.learner else []

    # -- what trains ---------------------------------------------------------------------------------------------

    def train_full(self, **optimizer: Any) -> None:
        """Train every parameter of the transformer, in float32.

        Args:
            optimizer: lr, betas, weight_decay, max_grad_norm, ema_decay and ema_every: ``AdamWConfig.adamw()``.
        """
        self.policy.transformer.requires_grad_(True)
        self._start_training(shard=True, **optimizer)

    def train_lora(self, *, rank: int, alpha: float, target_modules: Sequence[str], **optimizer: Any) -> None:
        """Train a PEFT LoRA adapter in float32 (gaussian initialisation); the pretrained weights stay as they are.

        Args:
            optimizer: as for ``train_full``.
        """
        from peft import LoraConfig

        transformer = self.policy.transformer
        config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=list(target_modules))
        with torch.random.fork_rng(devices=[]):  # PEFT draws the initial values from the global generator
            torch.manual_seed(self.rng("lora-init").initial_seed())
            transformer.add_adapter(config)
        for parameter in transformer.parameters():
            if not parameter.requires_grad:  # what stays as it is needs no more than the precision it computes in
                parameter.data = parameter.data.to(self.engine.dtype)
        self._start_training(shard=False, **optimizer)

    def _start_training(self, *, shard: bool, **optimizer: Any) -> None:
        transformer = self.policy.transformer
        self._twin = meta_twin(transformer).float()  # counted in one precision, whatever it computes in
        if self.compute.gradient_checkpointing:
            transformer.train()  # diffusers checkpoints in training mode only; SD3 has no dropout
            transformer.enable_gradient_checkpointing()
        if self.compute.compile:
            # Adapter on and off, with and without a graph, kinds of blocks, sizes of batches: more than the default 8.
            torch._dynamo.config.recompile_limit = 64
            for block in transformer.transformer_blocks:
                block.compile()
        self.policy.module = self.engine.wrap(transformer, list(transformer.transformer_blocks), shard=shard)
        trained = [p for p in transformer.parameters() if p.requires_grad]
        self.learner = Learner(self.engine, trained, adam_8bit=self.compute.adam_8bit, **optimizer)

    # -- doors: data ---------------------------------------------------------------------------------------------

    def pairs(self, count: int) -> Iterator[Pairs]:
        """This process's micro-batches of the next ``count`` training pairs. Use it in a ``for`` loop.

        Epochs are shuffled, and each visits every pair once. Pairs of different latent shapes come in different
        micro-batches.
        """
        if self._feed.data.latents is None:
            raise Undeclared("the method asked for training pairs but did not declare needs.pairs")
        for part, index, latents, text in self._batches("pairs", count):
            yield Pairs(latents, text, index, part.rows)

    def preference_pairs(self, count: int) -> Iterator[PreferencePairs]:
        """This process's micro-batches of the next ``count`` preference pairs, shuffled and cut as ``pairs`` does."""
        if self._feed.data.preferences is None:
            raise Undeclared("the method asked for preference pairs but did not declare needs.preference_pairs")
        for part, index, latents, text in self._batches("preferences", count):
            winners, losers = latents.unflatten(0, (-1, 2)).unbind(1)
            yield PreferencePairs(winners, losers, text, index, part.rows)

    def _batches(self, stream: str, count: int) -> Iterator[tuple[Part, Tensor, Tensor, TextCondition]]:
        """Micro-batches of the next ``count`` rows: the part, its rows, their latents and text."""
        share = math.ceil(count / self.engine.world_size)
        self._part_size = min(self.compute.micro_batch or share, share)
        portions = self._feed.portions(stream, count, self._part_size)
        for number, part in enumerate(self._turns([portion.part for portion in portions])):
            latents, text = portions[number].read()
            self._charge("pairs", len(portions[number].index))
            yield part, portions[number].index, latents.to(self.device), text.to(self.device)

    def prompts(self, count: int, *, repeat: int = 1) -> PromptBatch:
        """This process's share of the next ``count`` training prompts, in shuffled epochs.

        Args:
            repeat: rows per prompt, one after the other and never apart: a group of samples stays on one process.
        """
        data, world = self._feed.data, self.engine.world_size
        if not data.prompts:
            raise Undeclared("the method asked for prompts but did not declare needs.prompts")
        if count < world:
            raise JobFailure(f"{count} prompts cannot be shared by {world} processes; use fewer processes")
        index, following = self._feed.advance("prompts", count, len(data.prompts))
        bounds = [rank * count // world for rank in range(world + 1)]
        low, high = bounds[self.engine.rank], bounds[self.engine.rank + 1]
        mine = index[low:high]
        return PromptBatch(
            self._read_ahead(mine, following[low:high]).to(self.device),
            torch.arange(len(mine)).repeat_interleave(repeat),
            tuple(data.prompts[i] for i in mine.tolist() for _ in range(repeat)),
            torch.arange(low * repeat, high * repeat),
            tuple((first * repeat, end * repeat) for first, end in pairwise(bounds)),
            self.latent_shape,
        )

    def _read_ahead(self, rows: Tensor, following: Tensor) -> TextCondition:
        """Conditions of rows; where they are encoded as they are needed, the next step's are begun with."""
        text = self._feed.data.text
        read = text[rows]
        if isinstance(text, AheadText):
            text.announce(following)
        return read

    def parts(self, batch: PromptBatch, rows: Tensor | None = None) -> Iterator[Tensor]:
        """Micro-batches of this process's share, as positions in ``batch``. Use it in a ``for`` loop.

        Without a graph they are as large as an evaluation's batches, where those are larger.

        Args:
            rows: global rows to visit, the same on every process; each visits those of its share. None: all.
        """
        total, size = batch.shares[-1][1], self.compute.micro_batch
        if size and not torch.is_grad_enabled():
            size = max(size, self.compute.evaluation_batch)
        rows = torch.arange(total) if rows is None else rows
        self._part_size = min(size or total, max(end - first for first, end in batch.shares))
        for part in self._turns(deal_shares(rows, batch.shares, size or total, self.engine.rank)):
            yield part.rows

    def _turns(self, parts: list[Part]) -> Iterator[Part]:
        """Micro-batches in turn. Gradients are shared between processes at the last; padding counts for nothing."""
        before = self._padding
        for number, part in enumerate(parts):
            with self.more(number < len(parts) - 1):
                self._padding = before or part.padding
                try:
                    yield part
                finally:
                    self._padding = before

    def more(self, coming: bool = True) -> AbstractContextManager[None]:
        """Context for a forward and its backward that others follow in the same micro-batch (if ``coming``).

        Only saves communication: inside it, gradients are not shared between processes yet.
        """
        return self.engine.without_sync(self.policy.module) if coming else nullcontext()

    def pieces(self, count: int, *, per_row: int) -> Iterator[Tensor]:
        """Positions of ``count`` samples made from a micro-batch's rows, split by ``micro_batch``. Use it in a loop.

        Args:
            per_row: most samples that one row can give. It sets the number of pieces, which is the same on every
                process, whatever the length of its micro-batch, as sharded weights require.
        """
        size = self.compute.micro_batch
        number = math.ceil(per_row * self._part_size / size) if size else 1
        pieces = torch.arange(count, device=self.device).tensor_split(number)
        for part in self._turns([Part(p) if len(p) else Part(p.new_zeros(1), padding=True) for p in pieces]):
            yield part.rows

    # -- doors: randomness ---------------------------------------------------------------------------------------

    def rng(self, stream: str) -> torch.Generator:
        """A generator for this (seed, step, stream), the same on every process: for what all must agree on."""
        return torch_generator(self.seed, self.step, 0, stream)

    def normal(self, batch: Rows, stream: str, *shape: int) -> Tensor:
        """Standard normal draws (N, *shape): one generator per row, named (seed, step, row, stream)."""
        return self._draw(torch.randn, batch, stream, shape)

    def uniform(self, batch: Rows, stream: str, *shape: int) -> Tensor:
        """Uniform draws in [0, 1), as ``normal``."""
        return self._draw(torch.rand, batch, stream, shape)

    def noise(self, batch: Rows, stream: str) -> Tensor:
        """Gaussian latents (N, C, H, W) for a batch's rows."""
        return self.normal(batch, stream, *batch.latent_shape)

    def _draw(self, draw: Any, batch: Rows, stream: str, shape: Shape) -> Tensor:
        # Drawn on the CPU, so that the numbers are the same on every device. The stream's name is a part of its own,
        # so that no row of one stream can share a generator with ``rng``.
        rows = [
            draw(shape, generator=torch_generator(self.seed, self.step, row, "row", stream))
            for row in batch.rows.tolist()
        ]
        return torch.stack(rows).to(self.device)

    # -- doors: model and reward ---------------------------------------------------------------------------------

    def sample(self, noise: Tensor, text: TextCondition, *, steps: int, guidance_scale: float) -> Tensor:
        """Latents sampled from the policy by the ODE, without a graph."""
        return self.policy.sample(noise, text, steps=steps, guidance_scale=guidance_scale)

    def decode(self, latents: Tensor) -> np.ndarray:
        """uint8 (N, H, W, 3) images of latents."""
        self._charge_decode(len(latents), graph=False)
        return self._backbone.decode(latents)

    def decode_with_gradient(self, latents: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [0, 1] of latents, with a gradient to them. Its backward is charged now."""
        self._charge_decode(len(latents), graph=torch.is_grad_enabled())
        return self._backbone.decode_with_gradient(latents)

    def _charge_decode(self, images: int, *, graph: bool) -> None:
        if self._decode_cost is None:
            with self._backbone.vae_loaded() as vae:
                self._decode_cost = decode_cost(meta_twin(vae), self.latent_shape)
        self._charge("images", images)
        self._charge("flops", images * (self._decode_cost.forward + graph * self._decode_cost.backward))

    def reward(self, images: np.ndarray, prompts: Sequence[Prompt]) -> Tensor:
        """Scores of images by the reward this job was given: (N,) float32. Every process must call it alike."""
        return self.reward_later(images, prompts)()

    def reward_later(self, images: np.ndarray, prompts: Sequence[Prompt]) -> Callable[[], Tensor]:
        """As ``reward``, but the scores are waited for in the call that is returned, which every process must make.

        Where a GPU samples, a thread scores meanwhile.
        """
        if self._reward is None:
            raise Undeclared("the method asked for a reward but did not declare needs.reward")
        self._charge("reward_calls", len(images))
        self._charge("flops", self._reward.flops(len(images)))
        return self._reward.later(images, prompts)

    def differentiable_reward(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Scores (N,) of pictures (N, 3, H, W) in [0, 1] by this job's reward, with a gradient to them.

        The backward costs as much as the forward (one matrix product for each, where no weight trains) and is charged
        with it. Every process must call it alike.
        """
        if self._reward is None or not self._traced:
            raise Undeclared("the method asked for a reward's gradient but did not declare needs.differentiable_reward")
        self._charge("reward_calls", len(pixels))
        self._charge("flops", self._reward.flops(len(pixels)) * (1 + torch.is_grad_enabled()))
        return self._reward.differentiable(pixels, prompts)

    def gather(self, values: Tensor, batch: PromptBatch) -> Tensor:
        """Every process's (n,) values of its share, as (total,) in the order of rows: the same on each."""
        everyone = values.new_zeros(batch.shares[-1][1])
        everyone[batch.rows] = values
        return self.engine.sum(everyone)

    @property
    def untrained(self) -> bool:
        """True until the first update: of this stage, where the method is one of a pipeline's."""
        return self.learner is None or not self.learner.optimizer.state

    # -- doors: learning -----------------------------------------------------------------------------------------

    def accumulate(self, loss: Tensor, items: float) -> None:
        """Backward of a loss that is a *sum* over ``items`` samples (or weights of samples).

        ``update`` divides the gradients by the items of all micro-batches and processes. The mean is logged as "loss".
        """
        (loss * 0 if self._padding else loss).backward()
        if not self._padding:
            self._learning.items += items
        self.log("loss", loss, items)

    def update(self) -> None:
        """Average the gradients over the items, clip, take one optimizer step. The norm is logged as "grad_norm"."""
        learner = self._learning
        items = learner.take_items()
        if items == 0:
            raise JobFailure("the method called job.update() without job.accumulate(loss, items) before it")
        norm = learner.average(items)
        if not math.isfinite(norm):
            raise JobFailure(self._not_finite(norm))
        learner.step()
        self.meter.updates += 1
        self.log("grad_norm", norm)

    @property
    def _learning(self) -> Learner:
        if self.learner is None:
            raise JobFailure("the method's setup chose nothing to train")
        return self.learner

    def _not_finite(self, norm: float) -> str:
        """What was lost first. Weights that no update has touched yet were not lost to the learning rate."""
        loss = float(self._logged["loss"][0])
        what = f"the gradient norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        return f"{what} at step {self.step + 1}" + ("; lower the learning rate" if self.meter.updates else "")

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Context with the moving average of the weights in place, if the method asked for one; else nothing."""
        return self._learning.averaged()

    def log(self, name: str, total: Tensor | float, count: float = 1.0) -> None:
        """Add to a scalar of this step: ``total`` is a sum over ``count`` things; the mean over all is logged."""
        before, seen = self._logged.setdefault(name, (0.0, 0.0))  # in padding too: the same names on every process
        if not self._padding:
            value = total.detach().double() if isinstance(total, Tensor) else total
            self._logged[name] = (before + value, seen + count)

    def swapped(self, values: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Context with other values (those of an older policy, say) in place of ``parameters``."""
        return self._learning.swapped(values)

    # -- the harness's side --------------------------------------------------------------------------------------

    def _charge(self, count: str, amount: int) -> None:
        if not self._padding:
            setattr(self.meter, count, getattr(self.meter, count) + amount)

    def _charge_forward(self, latents: Tensor, graph: bool, bare: bool) -> None:
        samples, cost = len(latents), self._cost(tuple(latents.shape[1:]), bare)
        self._charge("forwards", samples)
        self._charge("reference_forwards", samples * bare)
        self._charge("flops", samples * cost.forward)
        if graph:  # charged with the forward, so that a graph that is built and thrown away is paid for
            self._charge("backwards", samples)
            self._charge("flops", samples * cost.backward)

    def _cost(self, shape: Shape, bare: bool) -> Cost:
        if self._twin is None:
            return Cost(0, 0)
        if (shape, bare) not in self._costs:
            tokens = self.policy.null.prompt_embeds.shape[1]
            count = reference_cost if bare else transformer_cost
            self._costs[shape, bare] = count(self._twin, shape, tokens)
        return self._costs[shape, bare]

    @contextmanager
    def unmetered(self) -> Iterator[None]:
        """Evaluation is never charged."""
        charge, self.policy._charge = self.policy._charge, _free
        try:
            yield
        finally:
            self.policy._charge = charge

    def grant(self, needs: Needs) -> None:
        """Open the doors that a method declared, and close the others."""
        self._feed.data, self._traced = self._given.given(needs), needs.differentiable_reward
        self._reward = self._scored if needs.reward or needs.differentiable_reward else None

    def position(self) -> dict[str, Any]:
        """The step and the rows read so far."""
        return {"step": self.step, "cursors": dict(self._feed.cursors)}

    def go_to(self, position: dict[str, Any]) -> None:
        """Go to a ``position``."""
        self.step, self._feed.cursors = position["step"], dict(position["cursors"])

    def restart(self, folder: Path) -> None:
        """Begin another stage: nothing trains yet, and the weights are what ``save_trained`` left in ``folder``."""
        self._started_from = folder
        self._begin(self._start())

    def _start(self) -> SD3Transformer2DModel:
        """A fresh transformer with the weights that this stage started from."""
        if self._started_from is None:
            return self._backbone.transformer()
        transformer = load_transformer(self._started_from, torch.float32, self.device)
        # Its config names the folder that it was loaded from, which differs from run to run.
        transformer.register_to_config(_name_or_path=self._pretrained)
        return transformer

    def save_trained(self, folder: Path, *, merge: bool) -> None:
        """Leave the present weights in ``folder``. Every process must call it.

        Args:
            merge: of an adapter, leave the whole transformer that it makes, where otherwise it is left alone.
        """
        transformer, main = self.policy.transformer, self.engine.is_main
        if not getattr(transformer, "peft_config", None):
            state = whole(transformer.state_dict(), keep=main)
            if main:
                save_weights(transformer, folder, state)
        elif main and merge:
            save_weights(with_adapter(self._start(), transformer), folder)
        elif main:
            save_weights(transformer, folder)
        self.engine.barrier()

    def close(self) -> None:
        """End the threads that read ahead and score."""
        self._feed.close()
        if self._scored is not None:
            self._scored.close()

    def finish_step(self, seconds: float, memory: int) -> dict[str, float]:
        """Close a step: add up what all processes spent, and return the scalars logged by all of them.

        Args:
            seconds: this process's time in the step.
            memory: this process's peak in bytes.
        """
        engine, meter, names = self.engine, self.meter, sorted(self._logged)
        counts = meter.counts()
        spent = torch.tensor([counts[name] - self._synced[name] for name in METERED], dtype=torch.int64)
        for name, total in zip(METERED, engine.sum(spent).tolist(), strict=True):
            setattr(meter, name, self._synced[name] + total)
        self._synced = meter.counts()
        peaks = torch.zeros(engine.world_size, dtype=torch.float64)
        peaks[engine.rank] = memory
        logged = [float(part) for name in names for part in self._logged[name]]
        sums = engine.sum(torch.tensor([*peaks.tolist(), seconds, *logged], dtype=torch.float64)).tolist()
        meter.peak_memory = max(meter.peak_memory, *map(int, sums[: engine.world_size]))
        meter.seconds += sums[engine.world_size]
        totals = iter(sums[engine.world_size + 1 :])
        self._logged = {}
        self.step += 1
        meter.steps += 1
        return {name: total / count for name, total, count in zip(names, totals, totals, strict=True) if count}

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed job needs, but for the method's own state. Every process must call it."""
        return {**self.position(), "meter": self.meter.state(), **self._learning.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``, made by any number of processes; called after the method's ``setup``."""
        self._learning.load_state_dict(state)
        self.go_to(state)
        self._logged = {}
        self.meter.load(state["meter"])
        self._synced = self.meter.counts()


def _free(latents: Tensor, graph: bool, bare: bool) -> None:
    """Charge nothing."""
