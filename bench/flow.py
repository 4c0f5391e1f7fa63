"""Flow-matching mathematics as flat functions on tensors. No state, no models, no randomness of its own.

Notation: ``z0`` clean latents, ``z1`` Gaussian noise, ``sigma`` in [0, 1] the noise level after the timestep shift,
``u`` in [0, 1] the time before it, ``z = (1 - sigma) z0 + sigma z1``, velocity ``v = z1 - z0``. Latents are
(N, C, H, W) and every ``sigma`` is a number or (N,). Everything is computed in float32 or wider.

A level that all samples share should be a Python number: the coefficients of a step are then worked out on the
host in double precision, and cost a GPU no kernels of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

Scale = Tensor | float
"""What multiplies latents: one number for all samples, or a tensor that broadcasts over (N, C, H, W)."""


def per_sample(value: Scale, like: Tensor) -> Scale:
    """A ``Scale`` that broadcasts over (N, C, H, W) latents, from (N,) values or a scalar. A number stays as it is."""
    if not isinstance(value, Tensor):
        return float(value)
    value = value.to(like.device, like.dtype)
    return value.reshape(-1, *([1] * (like.ndim - 1))) if value.ndim else value


def shift_time(u: Tensor, shift: float) -> Tensor:
    """Noise level of a time: ``shift u / (1 + (shift - 1) u)`` (Esser et al. 2024, SD3; shift 3 for SD3 and SD3.5)."""
    return shift * u / (1 + (shift - 1) * u)


def logit_normal_time(normal: Tensor, *, table: int = 1000) -> Tensor:
    """Logit-normal(0, 1) times on the scheduler's table, in {1/table, …, 1}, from standard normal draws of any shape.

    Source: Esser et al. 2024 (SD3), ``logit_normal``; snapping to the table of 1000 training timesteps follows
    diffusers' SD3 training script, so that every timestep given to the model is one it was trained on.
    """
    return ((torch.sigmoid(normal) * table).floor().clamp(0, table - 1) + 1) / table


def interpolate(z0: Tensor, z1: Tensor, sigma: Scale) -> Tensor:
    """``(1 - sigma) z0 + sigma z1``."""
    s = per_sample(sigma, z0)
    return (1 - s) * z0 + s * z1


def endpoint(z: Tensor, velocity: Tensor, sigma: Scale) -> Tensor:
    """Estimate of the clean latents: ``z - sigma v``."""
    return z - per_sample(sigma, z) * velocity


def euler(z: Tensor, velocity: Tensor, sigma: Scale, sigma_next: Scale) -> Tensor:
    """One step of the probability-flow ODE: ``z + (sigma' - sigma) v``."""
    return z + (per_sample(sigma_next, z) - per_sample(sigma, z)) * velocity


def guide(unconditional: Tensor, conditional: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance: ``v_0 + w (v_c - v_0)`` (Ho & Salimans 2022)."""
    return unconditional + guidance_scale * (conditional - unconditional)


def velocity_error(velocity: Tensor, target: Tensor, weight: Scale = 1.0) -> Tensor:
    """Squared error averaged over the latent dimensions, per sample, in float32: (N,).

    Args:
        weight: of each element, (N, C, H, W) or a scalar.
    """
    return (weight * (velocity.float() - target.float()).pow(2)).flatten(1).mean(1)


def direction_error(velocity: Tensor, target: Tensor) -> Tensor:
    """``|v/|v| - t/|t||²`` with the norms of whole samples, per sample, in float32: (N,), ``2 - 2 cos(v, t)``."""
    units = [torch.nn.functional.normalize(side.float().flatten(1), dim=1) for side in (velocity, target)]
    return (units[0] - units[1]).pow(2).sum(1)


def bias_weight(bias: Tensor, alpha: float) -> Tensor:
    """Weights that grow with the size of a bias: ``(1 + alpha |b| / mean|b|) / (1 + alpha)``, like ``bias``.

    The mean is over a sample's elements, so every sample's weights have mean 1, and alpha moves weight without adding
    any. A sample without bias gets ones.
    """
    size = bias.float().abs()
    mean = size.flatten(1).mean(1).reshape(-1, *([1] * (bias.ndim - 1)))
    return (1 + alpha * torch.where(mean > 0, size / mean, 1.0)) / (1 + alpha)


def correction_weight(kind: str, sigma: Tensor, *, knee: float = 0.2) -> Tensor:
    """Weight of a squared velocity error towards ``(z - z0) / sigma``, a target that grows as sigma vanishes: (N,).

    The SOAR paper (arXiv 2604.12617, Q4) asks for weights that are less at very low levels, or more at middle ones, and
    gives no formulas: ``clipped`` and ``mid`` are this project's reading, and so is the normalisation. Each weight has
    mean 1 for sigma uniform in [0, 1], so that a loss that counts points needs no other denominator.

    Args:
        kind: ``inherited`` (1), ``sigma_squared`` (``3 sigma²``: the error of the endpoint ``z - sigma v``, eq. 39),
            ``clipped`` (``min(1, sigma / knee)² / (1 - 2 knee / 3)``: as the former below the knee, flat above it) or
            ``mid`` (``6 sigma (1 - sigma)``, the Beta(2, 2) density).
        knee: in (0, 1].
    """
    if kind == "inherited":
        return torch.ones_like(sigma)
    if kind == "sigma_squared":
        return 3 * sigma**2
    if kind == "clipped":
        return (sigma / knee).clamp_max(1) ** 2 / (1 - 2 * knee / 3)
    if kind == "mid":
        return 6 * sigma * (1 - sigma)
    raise ValueError(f"unknown weight {kind!r}; one of inherited, sigma_squared, clipped, mid")


def stochastic_step(
    kind: str,
    z: Tensor,
    velocity: Tensor,
    sigma: Scale,
    sigma_next: Scale,
    noise: Tensor,
    scale: float = 0.5,
) -> Tensor:
    """One stochastic step from ``sigma`` to ``sigma_next``.

    Args:
        kind: ``simple`` (Euler plus ``scale sqrt|d sigma|`` noise), ``sde`` (re-noise the endpoint),
            ``cps`` (coefficient-preserving sampling) or ``flow_sde`` (the Flow-GRPO step).
        noise: Gaussian noise like ``z``.
        scale: noise scale s; 0.5 in the SOAR release.
    """
    s, s_next = per_sample(sigma, z), per_sample(sigma_next, z)
    if kind == "simple":
        gap = s_next - s
        length: Scale = gap.abs() if isinstance(gap, Tensor) else abs(gap)
        return euler(z, velocity, sigma, sigma_next) + scale * length**0.5 * noise
    if kind == "sde":
        return (1 - s_next) * endpoint(z, velocity, sigma) + s_next * noise
    if kind in ("cps", "flow_sde"):
        mean, std = transition_moments(kind, z, velocity, sigma, sigma_next, noise_level=scale)
        return mean + std * noise
    raise ValueError(f"unknown stochastic step {kind!r}; one of simple, sde, cps, flow_sde")


def flow_sde_moments(
    z: Tensor,
    velocity: Tensor,
    sigma: Scale,
    sigma_next: Scale,
    *,
    noise_level: float = 0.7,
    sigma_cap: float | None = None,
) -> tuple[Tensor, Scale]:
    """Mean and standard deviation of Flow-GRPO's SDE step (Liu et al. 2025, eq. 9; flow_grpo @ ac4c86e).

    ``s = a sqrt(sigma / (1 - sigma))``, ``mean = z (1 + s²/(2 sigma) dt) + v (1 + s² (1 - sigma)/(2 sigma)) dt``,
    ``std = s sqrt(-dt)``, ``dt = sigma' - sigma < 0``. At sigma = 1 the denominator ``1 - sigma`` uses ``sigma_cap``,
    the schedule's second sigma (``sigma_next`` when None).
    """
    z = z.float()
    s, s_next = per_sample(sigma, z), per_sample(sigma_next, z)
    cap = s_next if sigma_cap is None else sigma_cap
    capped = torch.where(s >= 1, cap, s) if isinstance(s, Tensor) else cap if s >= 1 else s
    spread = noise_level * (s / (1 - capped)) ** 0.5
    dt = s_next - s
    mean = z * (1 + spread**2 / (2 * s) * dt) + velocity.float() * (1 + spread**2 * (1 - s) / (2 * s)) * dt
    return mean, spread * (-dt) ** 0.5


def check_noise_level(kind: str, noise_level: float) -> None:
    """ValueError for a level that a kind of stochastic step has no use for.

    All noise of a step of ``cps`` is new at level 1. Above it the sine of ``cps_moments`` falls again.
    """
    if kind == "cps" and noise_level > 1:
        raise ValueError(f"a step of cps takes a noise level of at most 1, not {noise_level:g}")


def cps_moments(
    z: Tensor, velocity: Tensor, sigma: Scale, sigma_next: Scale, *, noise_level: float
) -> tuple[Tensor, Scale]:
    """Mean and standard deviation of coefficient-preserving sampling (arXiv 2509.05952; flow_grpo @ 54809b5).

    ``std = sigma' sin(a pi / 2)``, ``mean = (1 - sigma') z0 + sqrt(sigma'² - std²) z1`` with the model's estimates
    ``z0 = z - sigma v`` and ``z1 = z + (1 - sigma) v``: at sigma' the sample carries as much noise as it should.
    """
    s, s_next = per_sample(sigma, z), per_sample(sigma_next, z)
    std = s_next * math.sin(noise_level * math.pi / 2)
    start = z + (1 - s) * velocity
    # The deviation is less than the level but for rounding, which may not leave a root of less than nothing.
    rest = s_next**2 - std**2
    rest = rest.clamp_min(0) if isinstance(rest, Tensor) else max(rest, 0.0)
    return (1 - s_next) * endpoint(z, velocity, sigma) + rest**0.5 * start, std


def transition_moments(
    kind: str,
    z: Tensor,
    velocity: Tensor,
    sigma: Scale,
    sigma_next: Scale,
    *,
    noise_level: float,
    sigma_cap: float | None = None,
) -> tuple[Tensor, Scale]:
    """Mean and standard deviation of the Gaussian step ``kind``: ``flow_sde`` or ``cps`` (which needs no cap)."""
    if kind == "cps":
        return cps_moments(z, velocity, sigma, sigma_next, noise_level=noise_level)
    return flow_sde_moments(z, velocity, sigma, sigma_next, noise_level=noise_level, sigma_cap=sigma_cap)


def transition_log_prob(kind: str, sample: Tensor, mean: Tensor, std: Scale) -> Tensor:
    """Log-density of a step as flow_grpo takes it, averaged over the latent dimensions: (N,).

    That of ``cps`` is ``-(x - mean)²``: its public code drops the constants and ``1 / (2 std²)`` with them
    (flow_grpo @ 54809b5, ``sd3_sde_with_logprob.py``), so that every step weighs alike.
    """
    return -velocity_error(sample, mean) if kind == "cps" else gaussian_log_prob(sample, mean, std)


def transition_divergence(kind: str, mean: Tensor, reference: Tensor, std: Scale, span: Scale) -> Tensor:
    """``mean((mean - reference)²) / (2 s²)`` of a step of length ``span``, per sample: (N,).

    ``s`` is flow_grpo's ``std_dev_t`` (@ 54809b5): of ``cps`` the step's own, of ``flow_sde`` the deviation per unit of
    time, ``std / sqrt(span)``, which makes this ``span`` times the divergence of the two Gaussians.
    """
    spread = std if kind == "cps" else std / span**0.5
    return ((mean - reference) ** 2 / (2 * spread**2)).flatten(1).mean(1)


def guarded_ratio(sample: Tensor, mean: Tensor, old_mean: Tensor, std: Scale) -> Tensor:
    """Normalised importance ratio of GRPO-Guard (arXiv 2510.22319): (N,).

    ``exp((log p - log p_old + mean((mean - old)²) / (2 std²)) std)`` with Gaussian densities, which is
    ``exp(mean(eps (mean - old)))`` with the noise ``eps = (x - old) / std``. So computed, no log-densities are
    subtracted, whose difference float32 would lose. Under the old policy its logarithm has mean 0, whatever ``std``.
    """
    return torch.exp(((sample - old_mean) / std * (mean - old_mean)).flatten(1).mean(1))


def clipped_objective(ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """``max(-A ratio, -A clip(ratio, 1 ± clip_range))``, the loss of PPO (Schulman et al. 2017), per sample: (N,)."""
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip_range, 1 + clip_range))


def gaussian_log_prob(sample: Tensor, mean: Tensor, std: Scale) -> Tensor:
    """Log-density of ``sample``, averaged (not summed) over the latent dimensions as Flow-GRPO does: (N,)."""
    constant = (torch.log(std) if isinstance(std, Tensor) else math.log(std)) + 0.5 * math.log(2 * math.pi)
    per_dim = -((sample - mean) ** 2) / (2 * std**2) - constant
    return per_dim.flatten(1).mean(1)


def group_advantages(rewards: Tensor, *, clip: float = 5.0, epsilon: float = 1e-4) -> Tensor:
    """Advantages of groups of samples of one prompt each (GRPO as in flow_grpo, global std).

    Args:
        rewards: (prompts, group).

    Returns:
        ``(r - prompt mean) / (std over all + epsilon)`` clipped to ± ``clip``, same shape. A group of equal
        rewards gets zeros.

    Raises:
        ValueError: groups of one, whose advantages would all be zero.
    """
    if rewards.shape[1] < 2:
        raise ValueError(f"a group of {rewards.shape[1]} has nothing to compare with")
    rewards = rewards.double()
    centred = rewards - rewards.sum(1, keepdim=True) / rewards.shape[1]  # exact where all are equal, on every device
    return (centred / (rewards.std(correction=0) + epsilon)).clamp(-clip, clip).float()


def preference_margin(error: Tensor, reference: Tensor) -> Tensor:
    """How much better than a reference winners are fitted than losers: ``(e_l - e_l^ref) - (e_w - e_w^ref)``, (N,).

    Args:
        error, reference: squared velocity errors (2 N,) of policy and reference, the winners' first.
    """
    winners, losers = (error - reference).chunk(2)
    return losers - winners


def preference_loss(margin: Tensor, beta: float) -> Tensor:
    """``-log sigmoid(beta / 2 margin)``, log 2 where the policy is the reference (Diffusion-DPO, Wallace et al. 2023).

    The factor of one half is flow_grpo's (``scripts/train_sd3_dpo.py`` @ 879042c).
    """
    return -torch.nn.functional.logsigmoid(beta / 2 * margin)


@torch.no_grad()
def ema_update(shadow: Iterable[Tensor], parameters: Iterable[Tensor], decay: float) -> None:
    """``shadow ← decay shadow + (1 - decay) parameters``, in place, in one call for all of them."""
    held = list(shadow)
    values = [value.detach().to(own.dtype) for own, value in zip(held, parameters, strict=True)]
    torch._foreach_lerp_(held, values, 1 - decay)
