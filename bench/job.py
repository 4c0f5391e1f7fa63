"""A job: one method on one subset with one seed, and the metered doors through which the method works."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.backbone.loader import Backbone
from bench.backbone.policy import Policy
from bench.batches import Pairs, Part, PreferencePairs, PromptBatch, Rows, Shape, deal_shares
from bench.errors import JobFailure, Undeclared
from bench.flops import Flops, decode_cost, meta_twin
from bench.machine.engine import Compute, Engine
from bench.machine.transfer import beside, pinned, sent
from bench.prompt import Prompt
from bench.rng import torch_generator
from bench.training.feed import Feed
from bench.training.learner import Learner
from bench.training.ledger import Ledger
from bench.training.meter import Meter
from bench.training.model import TrainedModel
from bench.training.reward import Reward


class Job:
    """The only door to data, models, rewards and randomness. A method sees nothing else.

    A step works on a *global* batch. Each process gets its share of it in micro-batches; gradients are summed over all
    of them and divided by the number of items they stand for. So a method is written as if there were one process.

    What the harness does with it (charging, evaluating, saving, resuming) is not here: ``bench.experiment.session``.

    Attributes:
        device: where tensors live.
        seed: of the job.
        latent_shape: (C, H, W) of a picture of the backbone's resolution.
    """

    def __init__(
        self,
        backbone: Backbone,
        model: TrainedModel,
        ledger: Ledger,
        feed: Feed,
        scorer: Reward | None,
        engine: Engine,
        compute: Compute,
        seed: int,
    ) -> None:
        self.device, self.seed = engine.device, seed
        self.latent_shape: Shape = backbone.latent_shape
        self._backbone, self._model, self._ledger, self._feed = backbone, model, ledger, feed
        self._scorer, self._engine, self._compute = scorer, engine, compute
        self._decode_costs: dict[Shape, Flops] = {}
        self._part_size = 1

    @property
    def policy(self) -> Policy:
        """The model being trained, as a velocity field."""
        return self._model.policy

    @property
    def meter(self) -> Meter:
        """What has been spent so far, by all processes together: a copy."""
        return replace(self._ledger.meter)

    @property
    def step(self) -> int:
        """Index of the current iteration, from 0."""
        return self._ledger.step

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What trains, in a fixed order."""
        return self._model.learner.parameters if self._model.learner else []

    # -- what trains ---------------------------------------------------------------------------------------------

    def train_full(self, **optimizer: Any) -> None:
        """Train every parameter of the transformer, in float32.

        Args:
            optimizer: ``AdamWConfig.adamw()``: lr, betas, weight_decay, max_grad_norm, ema_decay, ema_every and
                ema_warmup. The last three may be left out.
        """
        self._model.train_full(**optimizer)

    def train_lora(self, *, rank: int, alpha: float, target_modules: Sequence[str], **optimizer: Any) -> None:
        """Train a PEFT LoRA adapter in float32 (gaussian initialisation); the pretrained weights stay as they are.

        Args:
            optimizer: as for ``train_full``.
        """
        seed = self.rng("lora-init")
        self._model.train_lora(seed, rank=rank, alpha=alpha, target_modules=target_modules, **optimizer)

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
        share = math.ceil(count / self._engine.world_size)
        self._part_size = min(self._compute.micro_batch or share, share)
        portions = self._feed.portions(stream, count, self._part_size)
        for number, part in enumerate(self._turns([portion.part for portion in portions])):
            latents, text = portions[number].read()
            self._ledger.charge("pairs", len(portions[number].index))
            yield part, portions[number].index, sent(latents, self.device), text.to(self.device)

    def prompts(self, count: int, *, repeat: int = 1) -> PromptBatch:
        """This process's share of the next ``count`` training prompts, in shuffled epochs.

        Args:
            repeat: rows per prompt, one after the other and never apart: a group of samples stays on one process.
        """
        data, world = self._feed.data, self._engine.world_size
        if not data.prompts:
            raise Undeclared("the method asked for prompts but did not declare needs.prompts")
        if count < world:
            raise JobFailure(f"{count} prompts cannot be shared by {world} processes; use fewer processes")
        index, following = self._feed.advance("prompts", count, len(data.prompts))
        bounds = [rank * count // world for rank in range(world + 1)]
        low, high = bounds[self._engine.rank], bounds[self._engine.rank + 1]
        mine = index[low:high]
        return PromptBatch(
            self._read_ahead(mine, following[low:high]).for_transformer(self._engine).to(self.device),
            torch.arange(len(mine)).repeat_interleave(repeat),
            tuple(data.prompts[i] for i in mine.tolist() for _ in range(repeat)),
            torch.arange(low * repeat, high * repeat),
            tuple((first * repeat, end * repeat) for first, end in pairwise(bounds)),
            self.latent_shape,
        )

    def _read_ahead(self, rows: Tensor, following: Tensor) -> TextCondition:
        """Conditions of rows; where they are encoded as they are needed, the next step's are begun with."""
        data = self._feed.data
        read = data.text[rows]
        if data.ahead is not None:
            data.ahead.announce(following)
        return read

    def parts(self, batch: PromptBatch, rows: Tensor | None = None) -> Iterator[Tensor]:
        """Micro-batches of this process's share, as positions in ``batch``. Use it in a ``for`` loop.

        Without a graph they are as large as an evaluation's batches, where those are larger.

        Args:
            rows: global rows to visit, the same on every process; each visits those of its share. None: all.
        """
        total, size = batch.shares[-1][1], self._rows_at_once()
        rows = torch.arange(total) if rows is None else rows
        self._part_size = min(size or total, max(end - first for first, end in batch.shares))
        for part in self._turns(deal_shares(rows, batch.shares, size or total, self._engine.rank)):
            yield part.rows

    def _rows_at_once(self) -> int | None:
        """Rows of a forward at most, with or without a graph as things stand; None: any number."""
        size = self._compute.micro_batch
        return size if not size or torch.is_grad_enabled() else max(size, self._compute.evaluation_batch)

    def _turns(self, parts: list[Part]) -> Iterator[Part]:
        """Micro-batches in turn. Gradients are shared between processes at the last; padding counts for nothing."""
        before = self._ledger.padding
        for number, part in enumerate(parts):
            with self.more(number < len(parts) - 1):
                self._ledger.padding = before or part.padding
                try:
                    yield part
                finally:
                    self._ledger.padding = before

    def more(self, coming: bool = True) -> AbstractContextManager[None]:
        """Context for a forward and its backward that others follow in the same micro-batch (if ``coming``).

        Only saves communication: inside it, gradients are not shared between processes yet.
        """
        return self._engine.without_sync(self.policy.module) if coming else nullcontext()

    def pieces(self, count: int, *, per_row: int) -> Iterator[Tensor]:
        """Positions of ``count`` samples made from a micro-batch's rows, split by ``micro_batch``. Use it in a loop.

        Without a graph they are as large as an evaluation's batches, where those are larger.

        Args:
            per_row: most samples that one row can give. It sets the number of pieces, which is the same on every
                process, whatever the length of its micro-batch, as sharded weights require.
        """
        size = self._rows_at_once()
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
        return sent(pinned(torch.stack(rows), self.device), self.device)

    # -- doors: model and reward ---------------------------------------------------------------------------------

    def sample(self, noise: Tensor, text: TextCondition, *, steps: int, guidance_scale: float) -> Tensor:
        """Latents sampled from the policy by the ODE, without a graph."""
        return self.policy.sample(noise, text, steps=steps, guidance_scale=guidance_scale)

    def decode(self, latents: Tensor) -> np.ndarray:
        """uint8 (N, H, W, 3) images of latents."""
        self._charge_decode(latents, graph=False)
        return self._backbone.decode(latents)

    def decode_with_gradient(self, latents: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [0, 1] of latents, with a gradient to them. Its backward is charged now."""
        self._charge_decode(latents, graph=torch.is_grad_enabled())
        return self._backbone.decode_with_gradient(latents)

    def _charge_decode(self, latents: Tensor, *, graph: bool) -> None:
        images, channels, height, width = latents.shape
        shape = (channels, height, width)
        if shape not in self._decode_costs:
            with self._backbone.vae_loaded() as vae:
                self._decode_costs[shape] = decode_cost(meta_twin(vae), shape)
        cost = self._decode_costs[shape]
        self._ledger.charge("images", images)
        self._ledger.charge("flops", images * (cost.forward + graph * cost.backward))

    def reward(self, images: np.ndarray, prompts: Sequence[Prompt]) -> Tensor:
        """Scores of images by the reward this job was given: (N,) float32. Every process must call it alike."""
        return self.reward_later(images, prompts)()

    def reward_later(self, images: np.ndarray, prompts: Sequence[Prompt]) -> Callable[[], Tensor]:
        """As ``reward``, but the scores are waited for in the call that is returned, which every process must make.

        Where a GPU samples, a thread scores meanwhile.
        """
        if self._scorer is None or not self._scorer.scores:
            raise Undeclared("the method asked for a reward but did not declare needs.reward")
        self._ledger.charge("reward_calls", len(images))
        self._ledger.charge("flops", self._scorer.flops(len(images)))
        return self._scorer.later(images, prompts)

    def differentiable_reward(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Scores (N,) of pictures (N, 3, H, W) in [0, 1] by this job's reward, with a gradient to them.

        The backward costs as much as the forward (one matrix product for each, where no weight trains) and is charged
        with it. Every process must call it alike.
        """
        if self._scorer is None or not self._scorer.traced:
            raise Undeclared("the method asked for a reward's gradient but did not declare needs.differentiable_reward")
        self._ledger.charge("reward_calls", len(pixels))
        self._ledger.charge("flops", self._scorer.flops(len(pixels)) * (1 + torch.is_grad_enabled()))
        return self._scorer.differentiable(pixels, prompts)

    def gather(self, values: Tensor, batch: PromptBatch) -> Tensor:
        """Every process's (n,) values of its share, as (total,) in the order of rows: the same on each."""
        everyone = values.new_zeros(batch.shares[-1][1])
        everyone[beside(batch.rows, values)] = values
        return self._engine.sum(everyone)

    @property
    def untrained(self) -> bool:
        """True until the first update: of this stage, where the method is one of a pipeline's."""
        return self._model.learner is None or not self._model.learner.optimizer.state

    # -- doors: learning -----------------------------------------------------------------------------------------

    def accumulate(self, loss: Tensor, items: float) -> None:
        """Backward of a loss that is a *sum* over ``items`` samples (or weights of samples).

        ``update`` divides the gradients by the items of all micro-batches and processes. The mean is logged as "loss".
        """
        (loss * 0 if self._ledger.padding else loss).backward()
        if not self._ledger.padding:
            self._learning.items += items
        self.log("loss", loss, items)

    def update(self) -> None:
        """Average the gradients over the items, clip, take one optimizer step. The norm is logged as "grad_norm"."""
        learner = self._learning
        self._engine.share_gradients(learner.parameters)
        items = learner.take_items()
        if items == 0:
            raise JobFailure("the method called job.update() without job.accumulate(loss, items) before it")
        norm = learner.average(items)
        if not math.isfinite(norm):
            raise JobFailure(self._not_finite(norm))
        learner.step()
        self._ledger.meter.updates += 1
        self.log("grad_norm", norm)

    @property
    def _learning(self) -> Learner:
        if self._model.learner is None:
            raise JobFailure("the method's setup chose nothing to train")
        return self._model.learner

    def _not_finite(self, norm: float) -> str:
        """What was lost first. Weights that no update has touched yet were not lost to the learning rate."""
        loss, _ = self._ledger.logged("loss")
        what = f"the gradient norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        return f"{what} at step {self.step + 1}" + ("; lower the learning rate" if self.meter.updates else "")

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Context with the moving average of the weights in place, if the method asked for one; else nothing."""
        return self._learning.averaged()

    def log(self, name: str, total: Tensor | float, count: float = 1.0) -> None:
        """Add to a scalar of this step: ``total`` is a sum over ``count`` things; the mean over all is logged."""
        self._ledger.log(name, total, count)

    def swapped(self, values: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Context with other values (those of an older policy, say) in place of ``parameters``."""
        return self._learning.swapped(values)
