"""Paths of a stochastic sampler, for policy gradients: sampled once, scored, and gone along again step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from bench import flow
from bench.batches import PromptBatch
from bench.rollout import one_of_each, roll_out

if TYPE_CHECKING:
    from bench.job import Job

TransitionKind = Literal["flow_sde", "cps"]


@dataclass(frozen=True)
class Transitions:
    """The Gaussian steps of a sampler; the formulas are ``bench/flow.py``'s.

    Attributes:
        kind, noise_level: of the step.
        guarded: importance ratios are GRPO-Guard's, which compare means instead of log-probabilities.
        sigmas: (T + 1,) noise levels.
        guidance_scale: of the sampling policy.
    """

    kind: TransitionKind
    noise_level: float
    guarded: bool
    sigmas: Tensor
    guidance_scale: float

    def moments(self, z: Tensor, velocity: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of step ``i``."""
        sigma, after, cap = self.sigmas[i], self.sigmas[i + 1], float(self.sigmas[1])
        return flow.transition_moments(
            self.kind, z, velocity, sigma, after, noise_level=self.noise_level, sigma_cap=cap
        )

    def memory(self, after: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """What a ratio needs of the policy that sampled ``after``: log-probabilities (n,), or if guarded the means."""
        return mean if self.guarded else flow.transition_log_prob(self.kind, after, mean, std)

    def ratio(self, after: Tensor, mean: Tensor, std: Tensor, old: Tensor | None) -> Tensor:
        """Importance ratios (n,) of the policy with these moments to the one that left ``old``.

        None: right after sampling the old policy is this policy. Taking its part from this very forward makes the ratio
        exactly 1, where a forward of another batch size would differ in the last bits.
        """
        memory = self.memory(after, mean, std)
        old = memory.detach() if old is None else old
        return flow.guarded_ratio(after, mean, old, std) if self.guarded else torch.exp(memory - old)

    def divergence(self, mean: Tensor, reference: Tensor, std: Tensor, i: int) -> Tensor:
        """Of step ``i`` from one with another mean: (n,)."""
        return flow.transition_divergence(self.kind, mean, reference, std, self.span(i))

    def span(self, i: int) -> Tensor:
        """``-dt`` of step ``i``."""
        return self.sigmas[i] - self.sigmas[i + 1]


@dataclass(frozen=True)
class Paths:
    """The K trained steps of sampled paths.

    Attributes:
        steps: which they are.
        latents: (N, K + 1, C, H, W), before each and after the last.
        memory: (N, K) or (N, K, C, H, W), ``Transitions.memory`` of each.
        unconditional: (N, K, C, H, W) velocity of each, where it was to be kept.
    """

    steps: range
    latents: Tensor
    memory: Tensor
    unconditional: Tensor | None = None


@torch.no_grad()
def sample_paths(
    job: Job,
    batch: PromptBatch,
    by: Transitions,
    *,
    trained: range,
    shared_by: int | None = None,
    keep_unconditional: bool = False,
) -> tuple[Paths, Tensor]:
    """Paths of this process's share, and the rewards of all rows in order.

    Args:
        trained: steps that are kept.
        shared_by: None: every step is stochastic. Else only those in ``trained`` are, the others are the ODE's, and
            this many rows in a row share their start and its way up to there, which is sampled once for all of them.
        keep_unconditional: of guided sampling, for an update of the very policy that sampled.
    """
    starts = None
    if shared_by:
        groups, ends = one_of_each(batch, shared_by), []
        for part in job.parts(groups):
            own, before = groups[part], range(trained.start)
            ends.append(_walk(job, own, job.noise(own, "start"), by, before, trained, windowed=True)[0])
        starts = torch.cat(ends)[: len(groups)]

    def draw(share: PromptBatch) -> tuple[Tensor, tuple[Tensor, ...]]:
        start = job.noise(share, "start") if starts is None else starts[share.of]
        steps = range(0 if starts is None else trained.start, len(by.sigmas) - 1)
        end, tensors = _walk(job, share, start, by, steps, trained, windowed=starts is not None)
        before, after, memory, unconditional = zip(*tensors, strict=True)
        paths = torch.stack([before[0], *after], 1), torch.stack(memory, 1)
        return end, (*paths, torch.stack(unconditional, 1)) if keep_unconditional else paths

    tensors, rewards = roll_out(job, batch, draw)
    return Paths(trained, *tensors), rewards


def _walk(
    job: Job, share: PromptBatch, z: Tensor, by: Transitions, steps: range, trained: range, *, windowed: bool
) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor, Tensor]]]:
    """Where ``steps`` lead; of each that is trained, latents before and after, memory and unconditional velocity."""
    trained_steps = []
    for i in steps:
        if by.guidance_scale == 1:
            unconditional = velocity = job.policy.velocity(z, by.sigmas[i], share.text)
        else:
            unconditional, conditional = job.policy.branches(z, by.sigmas[i], share.text)
            velocity = flow.guide(unconditional, conditional, by.guidance_scale)
        if windowed and i not in trained:
            z = flow.euler(z, velocity, by.sigmas[i], by.sigmas[i + 1])
            continue
        before, (mean, std) = z, by.moments(z, velocity, i)
        z = mean + std * job.noise(share, f"sde-{i}")
        if i in trained:
            trained_steps.append((before, z, by.memory(z, mean, std), unconditional))
    return z, trained_steps
