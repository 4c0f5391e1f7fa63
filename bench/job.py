"""A job: one method on one subset with one seed, and the metered doors through which the method works."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.backbone.loader import Backbone, TextCondition
from bench.backbone.policy import Policy
from bench.errors import BenchError
from bench.flops import Cost, count, meta_twin, transformer_cost
from bench.meter import Meter
from bench.rng import numpy_generator, torch_generator
from bench.suite import Prompt

if TYPE_CHECKING:
    from bench.metric import Metric


class JobFailure(Exception):
    """The method did something that ends this job and no other: the reason goes into its status."""


@dataclass(frozen=True)
class Pairs:
    """A batch of training pairs: clean latents (N, C, H, W), their prompts' conditions, and corpus indices (N,)."""

    latents: Tensor
    text: TextCondition
    indices: Tensor

    def __len__(self) -> int:
        return len(self.latents)


@dataclass(frozen=True)
class PromptBatch:
    """A batch of training prompts: conditions and the prompts themselves (for rewards)."""

    text: TextCondition
    prompts: tuple[Prompt, ...]

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class TrainingData:
    """What every method of an experiment shares: cached latents, captions and their conditions.

    A method that did not declare ``pairs`` gets no latents, one that did not declare ``prompts`` gets no prompts.
    """

    latents: Tensor | None
    text: TextCondition
    prompts: tuple[Prompt, ...]
    text_of: Tensor
    """(pairs,) row of ``text`` and ``prompts`` that belongs to each pair."""


class Job:
    """The only door to data, models, rewards and randomness. A method sees nothing else.

    Attributes:
        policy: the model being trained, as a velocity field.
        meter: what has been spent.
        step: index of the current iteration, from 0.
        parameters: what trains, in a fixed order.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        null: TextCondition,
        data: TrainingData,
        seed: int,
        reward: Metric | None = None,
        rank: int = 0,
    ) -> None:
        self.seed, self.rank, self.step = seed, rank, 0
        self.meter = Meter()
        self.latent_shape = backbone.latent_shape
        self._backbone, self._data, self._reward = backbone, data, reward
        self.policy = Policy(backbone.transformer(), backbone.scheduler(), null, self._charge_forward)
        self.policy.transformer.requires_grad_(False)
        self.parameters: list[torch.nn.Parameter] = []
        self.optimizer: torch.optim.Optimizer | None = None
        self._max_grad_norm = math.inf
        self._cost = Cost(0.0, 0.0)
        self._decode_cost: float | None = None
        self._cursor = 0  # pairs read so far, over all epochs
        self._prompt_cursor = 0
        self._order: tuple[str, int, Tensor] | None = None

    # -- what trains ---------------------------------------------------------------------------------------------

    def train_full(self, *, lr: float, betas: tuple[float, float], weight_decay: float, max_grad_norm: float) -> None:
        """Train every parameter of the transformer with AdamW."""
        self.policy.transformer.requires_grad_(True)
        self._make_optimizer(lr, betas, weight_decay, max_grad_norm)

    def train_lora(
        self,
        *,
        rank: int,
        alpha: float,
        target_modules: Sequence[str],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        max_grad_norm: float,
    ) -> None:
        """Train a PEFT LoRA adapter (gaussian initialisation) with AdamW; the pretrained weights stay as they are."""
        from peft import LoraConfig

        config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=list(target_modules))
        with torch.random.fork_rng(devices=[]):  # PEFT draws the initial values from the global generator
            torch.manual_seed(self.rng("lora-init").initial_seed())
            self.policy.transformer.add_adapter(config)
        self._make_optimizer(lr, betas, weight_decay, max_grad_norm)

    def _make_optimizer(self, lr: float, betas: tuple[float, float], weight_decay: float, max_grad_norm: float) -> None:
        self.parameters = [p for p in self.policy.transformer.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, betas=betas, weight_decay=weight_decay)
        self._max_grad_norm = max_grad_norm
        tokens = self.policy.null.prompt_embeds.shape[1]
        self._cost = transformer_cost(self.policy.transformer, self.latent_shape, tokens)

    # -- doors ---------------------------------------------------------------------------------------------------

    def rng(self, stream: str) -> torch.Generator:
        """A generator for this (seed, step, rank, stream). Asking twice in a step gives the same draws twice."""
        return torch_generator(self.seed, self.step, self.rank, stream)

    def pairs(self, count: int) -> Pairs:
        """The next ``count`` training pairs: epochs are shuffled, and each visits every pair once."""
        if self._data.latents is None:
            raise JobFailure("the method asked for training pairs but did not declare needs.pairs")
        index = self._take("pairs", self._cursor, count, len(self._data.text_of))
        self._cursor += count
        self.meter.pairs += count
        return Pairs(self._data.latents[index], self._data.text[self._data.text_of[index]], index)

    def prompts(self, count: int) -> PromptBatch:
        """The next ``count`` training prompts (different captions of the subset), in shuffled epochs."""
        if not self._data.prompts:
            raise JobFailure("the method asked for prompts but did not declare needs.prompts")
        index = self._take("prompts", self._prompt_cursor, count, len(self._data.prompts))
        self._prompt_cursor += count
        return PromptBatch(self._data.text[index], tuple(self._data.prompts[i] for i in index.tolist()))

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

    def noise(self, count: int, stream: str) -> Tensor:
        """Gaussian latents (count, C, H, W) for this step."""
        return torch.randn(count, *self.latent_shape, generator=self.rng(stream))

    def sample(self, noise: Tensor, text: TextCondition, *, steps: int, guidance_scale: float) -> Tensor:
        """Latents sampled from the policy by the ODE, without a graph."""
        return self.policy.sample(noise, text, steps=steps, guidance_scale=guidance_scale)

    def decode(self, latents: Tensor) -> np.ndarray:
        """uint8 (N, H, W, 3) images of latents."""
        self.meter.images += len(latents)
        if self._decode_cost is None:
            self._decode_cost = _vae_decode_cost(self._backbone)
        self.meter.flops += self._decode_cost * len(latents)
        return self._backbone.decode(latents)

    def reward(self, images: np.ndarray, prompts: Sequence[Prompt]) -> Tensor:
        """Scores of images by the reward this job was given: (N,) float32."""
        if self._reward is None:
            raise JobFailure("the method asked for a reward but did not declare needs.reward")
        self.meter.reward_calls += len(images)
        self.meter.flops += self._reward.flops_per_image * len(images)
        scores = torch.tensor(self._reward.score(list(images), prompts), dtype=torch.float32)
        if scores.shape != (len(images),):
            raise JobFailure(f"the reward returned shape {tuple(scores.shape)} for {len(images)} images")
        if not torch.isfinite(scores).all():
            raise JobFailure(f"the reward {self._reward.name} returned NaN or infinity")
        return scores

    def accumulate(self, loss: Tensor) -> None:
        """Backward without an update; gradients add up until ``update``."""
        if not torch.isfinite(loss):
            raise JobFailure(f"the loss is {loss.item()} at step {self.step}; lower the learning rate")
        loss.backward()

    def update(self, loss: Tensor | None = None) -> float:
        """Backward of ``loss`` (if given), clip the gradient, one optimizer step. Returns the gradient norm."""
        if loss is not None:
            self.accumulate(loss)
        if self.optimizer is None:
            raise JobFailure("the method updates but its setup chose nothing to train")
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self._max_grad_norm))
        if not math.isfinite(norm):
            raise JobFailure(f"the gradient norm is {norm} at step {self.step}; lower the learning rate")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.meter.updates += 1
        return norm

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

    def _charge_forward(self, samples: int, graph: bool) -> None:
        self.meter.forwards += samples
        self.meter.flops += samples * self._cost.forward
        if graph:  # charged with the forward, so that a graph that is built and thrown away is paid for
            self.meter.backwards += samples
            self.meter.flops += samples * self._cost.backward

    @contextmanager
    def unmetered(self) -> Iterator[None]:
        """Evaluation is never charged."""
        charge, self.policy._charge = self.policy._charge, _free
        try:
            yield
        finally:
            self.policy._charge = charge

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed job needs, but for the method's own state."""
        assert self.optimizer is not None
        return {
            "step": self.step,
            "cursor": self._cursor,
            "prompt_cursor": self._prompt_cursor,
            "meter": self.meter.state(),
            "optimizer": self.optimizer.state_dict(),
            "parameters": [p.detach() for p in self.parameters],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``; called after the method's ``setup``."""
        assert self.optimizer is not None
        if [p.shape for p in state["parameters"]] != [p.shape for p in self.parameters]:
            raise BenchError("the checkpoint's parameters have other shapes; it belongs to another configuration")
        self.step, self._cursor, self._prompt_cursor = state["step"], state["cursor"], state["prompt_cursor"]
        self.meter.load(state["meter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._fill(state["parameters"])


def _free(samples: int, graph: bool) -> None:
    """Charge nothing."""


def _vae_decode_cost(backbone: Backbone) -> float:
    twin = meta_twin(backbone.vae)
    latents = torch.empty(1, *backbone.latent_shape, device="meta")
    decode: Callable[[Tensor], Any] = twin.decode  # type: ignore[assignment]
    with torch.no_grad():
        return count(lambda: decode(latents))
