"""A job: one method on one subset with one seed, and the metered doors through which the method works."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench import flow
from bench.backbone.ahead import AheadText
from bench.backbone.loader import Backbone, TextCondition
from bench.backbone.loading import load_transformer
from bench.backbone.policy import Policy
from bench.batches import Pairs, Part, PreferencePairs, PromptBatch, Rows, Shape, cut, deal, deal_shares
from bench.data import Prefetch, TrainingData
from bench.engine import Compute, Engine, spread, whole
from bench.errors import BenchError
from bench.flops import Cost, decode_cost, meta_twin, reference_cost, transformer_cost
from bench.meter import Meter
from bench.metric import checked
from bench.rng import numpy_generator, torch_generator
from bench.suite import Prompt
from bench.weights import save_weights, with_adapter

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

    from bench.method import Needs
    from bench.metric import Metric

METERED = ("flops", "forwards", "reference_forwards", "backwards", "images", "reward_calls", "pairs")
"""Counts to which each process adds its part; steps and updates are the same on all of them."""


class JobFailure(Exception):
    """The method did something that ends this job and no other: the reason goes into its status."""


class Undeclared(JobFailure):
    """The method used a door that its ``needs`` does not open."""


class Job:
    """The only door to data, models, rewards and randomness. A method sees nothing else.

    A step works on a *global* batch. Each process gets its share of it in micro-batches; gradients are summed over all
    of them and divided by the number of items they stand for. So a method is written as if there were one process.

    Attributes:
        policy: the model being trained, as a velocity field.
        meter: what has been spent, by all processes together.
        step: index of the current iteration, from 0.
        parameters: what trains, in a fixed order.
        device: where tensors live.
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
    ) -> None:
        self.engine, self.compute = engine or Engine(), compute or Compute()
        self.device = self.engine.device
        self.seed, self.step = seed, 0
        self.meter = Meter()
        self.latent_shape: Shape = backbone.latent_shape
        self._backbone, self._null = backbone, null
        self._given = self._data = data
        self._metric = self._reward = reward
        self._traced = True  # whether the reward may be asked for its gradient
        self._started_from: Path | None = None
        transformer = backbone.transformer()
        self._pretrained = transformer.config.get("_name_or_path")
        self._begin(transformer)
        self._decode_cost: Cost | None = None
        self._cursors = {"pairs": 0, "prompts": 0, "preferences": 0}  # rows read so far, over all epochs
        self._order: tuple[str, int, Tensor] | None = None
        self._prefetch = Prefetch(self._read)
        self._items = 0.0
        self._part_size = 1
        self._padding = False
        self._logged: dict[str, tuple[Tensor | float, float]] = {}
        self._synced = self.meter.counts()
        self._scorer: ThreadPoolExecutor | None = None

    def _begin(self, transformer: SD3Transformer2DModel) -> None:
        """Nothing trains yet."""
        transformer.requires_grad_(False)
        self.policy = Policy(transformer, self._backbone.scheduler(), self._null, self.engine, self._charge_forward)
        self.parameters: list[torch.nn.Parameter] = []
        self.optimizer: torch.optim.Optimizer | None = None
        self._max_grad_norm = math.inf
        self._twin: SD3Transformer2DModel | None = None
        self._costs: dict[tuple[Shape, bool], Cost] = {}
        self._ema: list[Tensor] | None = None
        self._ema_settings = (0.0, 1)
        self._ema_steps = 0

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

    def _start_training(
        self,
        *,
        shard: bool,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        max_grad_norm: float,
        ema_decay: float = 0.0,
        ema_every: int = 1,
    ) -> None:
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
        self.parameters = [p for p in transformer.parameters() if p.requires_grad]
        kind = _adam_8bit() if self.compute.adam_8bit else torch.optim.AdamW
        self.optimizer = kind(self.parameters, lr=lr, betas=betas, weight_decay=weight_decay)
        self._max_grad_norm = max_grad_norm
        self._ema_settings = (ema_decay, ema_every)
        self._ema = [p.detach().clone() for p in self.parameters] if ema_decay else None

    # -- doors: data ---------------------------------------------------------------------------------------------

    def pairs(self, count: int) -> Iterator[Pairs]:
        """This process's micro-batches of the next ``count`` training pairs. Use it in a ``for`` loop.

        Epochs are shuffled, and each visits every pair once. Pairs of different latent shapes come in different
        micro-batches.
        """
        if self._data.latents is None:
            raise Undeclared("the method asked for training pairs but did not declare needs.pairs")
        for part, index, latents, text in self._batches("pairs", count, self._data, torch.arange(len(self._data))):
            yield Pairs(latents, text, index, part.rows)

    def preference_pairs(self, count: int) -> Iterator[PreferencePairs]:
        """This process's micro-batches of the next ``count`` preference pairs, shuffled and cut as ``pairs`` does."""
        preferences = self._data.preferences
        if preferences is None:
            raise Undeclared("the method asked for preference pairs but did not declare needs.preference_pairs")
        for part, index, latents, text in self._batches("preferences", count, preferences.pictures, preferences.pairs):
            winners, losers = latents.unflatten(0, (-1, 2)).unbind(1)
            yield PreferencePairs(winners, losers, text, index, part.rows)

    def _batches(
        self, stream: str, count: int, data: TrainingData, places: Tensor
    ) -> Iterator[tuple[Part, Tensor, Tensor, TextCondition]]:
        """Micro-batches of the next ``count`` rows of ``places``: the part, its rows, their latents and text.

        Args:
            places: (rows,) or (rows, pictures) positions in ``data`` of what a row holds, all of one latent shape.
        """
        start = self._cursors[stream]
        mine = self._row_parts(stream, start, count, data, places)
        after = self._row_parts(stream, start + count, count, data, places)
        self._cursors[stream] += count
        keys = [(stream, *places[index].flatten().tolist()) for _, index in [*mine, after[0]]]
        for number, part in enumerate(self._turns([part for part, _ in mine])):
            latents, text = self._prefetch.get(keys[number], keys[number + 1])
            self._charge("pairs", len(mine[number][1]))
            yield part, mine[number][1], latents.to(self.device), text.to(self.device)

    def _row_parts(
        self, stream: str, start: int, count: int, data: TrainingData, places: Tensor
    ) -> list[tuple[Part, Tensor]]:
        """This process's micro-batches of the rows from ``start`` on, with the rows' indices."""
        index = self._take(stream, start, count, len(places))
        share = math.ceil(count / self.engine.world_size)
        self._part_size = min(self.compute.micro_batch or share, share)
        shapes = data.shapes[places[index].reshape(len(index), -1)[:, 0]]
        parts = deal(cut(shapes, self._part_size), self.engine.rank, self.engine.world_size)
        return [(part, index[part.rows]) for part in parts]

    def _read(self, key: tuple[str, *tuple[int, ...]]) -> tuple[Tensor, TextCondition]:
        stream, *places = key
        index, preferences = torch.tensor(places), self._data.preferences
        data = preferences.pictures if stream == "preferences" and preferences else self._data
        captions = index[::2] if stream == "preferences" else index  # one for both pictures
        assert data.latents is not None
        return data.latents[index], data.text[data.text_of[captions]]

    def prompts(self, count: int, *, repeat: int = 1) -> PromptBatch:
        """This process's share of the next ``count`` training prompts, in shuffled epochs.

        Args:
            repeat: rows per prompt, one after the other and never apart: a group of samples stays on one process.
        """
        if not self._data.prompts:
            raise Undeclared("the method asked for prompts but did not declare needs.prompts")
        index = self._take("prompts", self._cursors["prompts"], count, len(self._data.prompts))
        self._cursors["prompts"] += count
        following = self._take("prompts", self._cursors["prompts"], count, len(self._data.prompts))
        world = self.engine.world_size
        if count < world:
            raise JobFailure(f"{count} prompts cannot be shared by {world} processes; use fewer processes")
        bounds = [rank * count // world for rank in range(world + 1)]
        low, high = bounds[self.engine.rank], bounds[self.engine.rank + 1]
        mine = index[low:high]
        return PromptBatch(
            self._read_ahead(mine, following[low:high]).to(self.device),
            torch.arange(len(mine)).repeat_interleave(repeat),
            tuple(self._data.prompts[i] for i in mine.tolist() for _ in range(repeat)),
            torch.arange(low * repeat, high * repeat),
            tuple((first * repeat, end * repeat) for first, end in pairwise(bounds)),
            self.latent_shape,
        )

    def _read_ahead(self, rows: Tensor, following: Tensor) -> TextCondition:
        """Conditions of rows; where they are encoded as they are needed, the next step's are begun with."""
        text = self._data.text[rows]
        if isinstance(self._data.text, AheadText):
            self._data.text.announce(following)
        return text

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

    def _take(self, stream: str, start: int, count: int, size: int) -> Tensor:
        parts, position = [], start
        while position < start + count:
            epoch, offset = divmod(position, size)
            if self._order is None or self._order[:2] != (stream, epoch):
                order = numpy_generator(self.seed, epoch, 0, f"{stream}-order").permutation(size)
                self._order = (stream, epoch, torch.from_numpy(order))
            part = self._order[2][offset : offset + start + count - position]
            parts.append(part)
            position += len(part)
        return torch.cat(parts)

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

        Where a GPU samples, a thread scores meanwhile: preparing pictures and reading signs are the CPU's work.
        """
        if self._reward is None:
            raise Undeclared("the method asked for a reward but did not declare needs.reward")
        self._charge("reward_calls", len(images))
        self._charge("flops", round(self._reward.flops_per_image * len(images)))
        if self.device.type == "cuda":
            if self._scorer is None:
                self._scorer = ThreadPoolExecutor(1, "reward", torch.cuda.set_device, (self.device,))
            scored: Future[Any] = self._scorer.submit(self._reward.score, list(images), prompts)
        else:
            scored = Future()
            scored.set_result(self._reward.score(list(images), prompts))
        return lambda: self._checked(scored.result(), len(images))

    def differentiable_reward(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Scores (N,) of pictures (N, 3, H, W) in [0, 1] by this job's reward, with a gradient to them.

        The backward costs as much as the forward (one matrix product for each, where no weight trains) and is charged
        with it. Every process must call it alike.
        """
        if self._reward is None or not self._traced:
            raise Undeclared("the method asked for a reward's gradient but did not declare needs.differentiable_reward")
        self._charge("reward_calls", len(pixels))
        self._charge("flops", round(self._reward.flops_per_image * len(pixels)) * (1 + torch.is_grad_enabled()))
        traced = torch.is_grad_enabled() and pixels.requires_grad
        return self._checked(self._reward.differentiable_score(pixels, prompts), len(pixels), traced=traced)

    def _checked(self, scores: Any, count: int, *, traced: bool | None = None) -> Tensor:
        """Scores (count,) of the reward, in float32, or the end of the job.

        Args:
            traced: whether a gradient must lead through them; None: they are any list of numbers.
        """
        assert self._reward is not None
        problem, kept = None, torch.zeros(count)
        try:
            kept = torch.tensor(checked(scores, count), dtype=torch.float32) if traced is None else scores
            if not isinstance(kept, Tensor):
                problem = f"returned {reprlib.repr(scores)}, not a tensor"
            elif kept.shape != (count,):
                problem = f"returned shape {tuple(kept.shape)} for {count} images"
            elif not torch.isfinite(kept).all():
                problem = "returned NaN or infinity"
            elif traced and not kept.requires_grad:
                problem = "returned scores without a gradient to the pictures"
        except BenchError as error:
            problem = str(error)
        self.engine.fail_together(problem and f"the reward {self._reward.name} {problem}", JobFailure)
        return kept.to(self.device)

    def gather(self, values: Tensor, batch: PromptBatch) -> Tensor:
        """Every process's (n,) values of its share, as (total,) in the order of rows: the same on each."""
        everyone = values.new_zeros(batch.shares[-1][1])
        everyone[batch.rows] = values
        return self.engine.sum(everyone)

    @property
    def untrained(self) -> bool:
        """True until the first update: of this stage, where the method is one of a pipeline's."""
        return self.optimizer is None or not self.optimizer.state

    # -- doors: learning -----------------------------------------------------------------------------------------

    def accumulate(self, loss: Tensor, items: float) -> None:
        """Backward of a loss that is a *sum* over ``items`` samples (or weights of samples).

        ``update`` divides the gradients by the items of all micro-batches and processes. The mean is logged as "loss".
        """
        (loss * 0 if self._padding else loss).backward()
        if not self._padding:
            self._items += items
        self.log("loss", loss, items)

    def update(self) -> None:
        """Average the gradients over the items, clip, take one optimizer step. The norm is logged as "grad_norm"."""
        if self.optimizer is None:
            raise JobFailure("the method updates but its setup chose nothing to train")
        items = float(self.engine.sum(torch.tensor(self._items, dtype=torch.float64)))
        self._items = 0.0
        if items == 0:
            raise JobFailure("the method called job.update() without job.accumulate(loss, items) before it")
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_mul_(gradients, self.engine.world_size / items)  # data parallelism averages over processes
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self._max_grad_norm)
        size = float(whole(norm))
        if not math.isfinite(size):
            raise JobFailure(self._not_finite(size))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.meter.updates += 1
        self.log("grad_norm", size)
        self._step_ema()

    def _not_finite(self, norm: float) -> str:
        """What was lost first. Weights that no update has touched yet were not lost to the learning rate."""
        loss = float(self._logged["loss"][0])
        what = f"the gradient norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        return f"{what} at step {self.step + 1}" + ("; lower the learning rate" if self.meter.updates else "")

    def _step_ema(self) -> None:
        cap, every = self._ema_settings
        self._ema_steps += 1
        if self._ema is not None and self._ema_steps % every == 0:
            decay = min(cap, (1 + self._ema_steps) / (10 + self._ema_steps))
            flow.ema_update(self._ema, self.parameters, decay)

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Context with the moving average of the weights in place, if the method asked for one; else nothing."""
        return nullcontext() if self._ema is None else self.swapped(self._ema)

    def log(self, name: str, total: Tensor | float, count: float = 1.0) -> None:
        """Add to a scalar of this step: ``total`` is a sum over ``count`` things; the mean over all is logged."""
        before, seen = self._logged.setdefault(name, (0.0, 0.0))  # in padding too: the same names on every process
        if not self._padding:
            value = total.detach().double() if isinstance(total, Tensor) else total
            self._logged[name] = (before + value, seen + count)

    @contextmanager
    def swapped(self, values: Sequence[Tensor]) -> Iterator[None]:
        """Put other values (an EMA, say) in place of ``parameters`` inside the context."""
        kept = [p.detach().clone() for p in self.parameters]
        self._fill(values)
        try:
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def _fill(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

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
        self._data, self._traced = self._given.given(needs), needs.differentiable_reward
        self._reward = self._metric if needs.reward or needs.differentiable_reward else None

    def position(self) -> dict[str, Any]:
        """The step and the rows read so far."""
        return {"step": self.step, "cursors": dict(self._cursors)}

    def go_to(self, position: dict[str, Any]) -> None:
        """Go to a ``position``."""
        self.step, self._cursors = position["step"], dict(position["cursors"])

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
        self._prefetch.close()
        if self._scorer is not None:
            self._scorer.shutdown(cancel_futures=True)

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
        assert self.optimizer is not None
        return {
            **self.position(),
            "meter": self.meter.state(),
            "optimizer": self.optimizer.state_dict(),
            "parameters": [p.detach() for p in self.parameters],
            "ema": self._ema,
            "ema_steps": self._ema_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``, made by any number of processes; called after the method's ``setup``."""
        assert self.optimizer is not None
        if [p.shape for p in state["parameters"]] != [p.shape for p in self.parameters]:
            raise BenchError("the checkpoint's parameters have other shapes; it belongs to another configuration")
        self.go_to(state)
        self._logged = {}
        self.meter.load(state["meter"])
        self._synced = self.meter.counts()
        moments = state["optimizer"]["state"]
        for number, parameter in enumerate(self.parameters):
            for name, value in moments.get(number, {}).items():
                if getattr(value, "shape", None) == parameter.shape:
                    moments[number][name] = spread(value, parameter)
        self.optimizer.load_state_dict(state["optimizer"])
        self._fill(spread(state["parameters"], self.parameters))
        self._ema, self._ema_steps = spread(state["ema"], self._ema), state["ema_steps"]


def _free(latents: Tensor, graph: bool, bare: bool) -> None:
    """Charge nothing."""


def _adam_8bit() -> Any:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise BenchError("adam_8bit needs bitsandbytes: pip install bitsandbytes") from error
    return AdamW8bit
