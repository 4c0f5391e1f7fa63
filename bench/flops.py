"""FLOPs of a model's forward and backward, counted on the meta device, so that CPU and GPU charge the same.

``torch.utils.flop_counter`` has no formula for the CPU's fused attention; on the meta device, unfused, attention falls
apart into matrix products that are counted (a test compares with pencil and paper). Element-wise work is not
counted, as in every published FLOP figure.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.backbone.weights import adapters_off

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel


@dataclass(frozen=True)
class Flops:
    """FLOPs per sample of one forward, and of the backward that goes with it."""

    forward: int
    backward: int


COUNTED: dict[tuple[Any, ...], Flops] = {}
"""Counting takes a second; the jobs of an experiment ask for the same models again."""


def _once(cost: Callable[..., Flops], model: torch.nn.Module, *inputs: Any) -> Flops:
    """``cost(model, *inputs)``, counted once for the same modules, adapters that are on, and parameters that train."""
    modules = tuple((name, type(m), getattr(m, "_disable_adapters", None)) for name, m in model.named_modules())
    key = (cost, modules, tuple((name, p.shape, p.requires_grad) for name, p in model.named_parameters()), inputs)
    if key not in COUNTED:
        COUNTED[key] = cost(model, *inputs)
    return COUNTED[key]


def count(function: Callable[[], Any]) -> int:
    """FLOPs of the matrix products and convolutions that ``function`` runs on meta tensors."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        function()
    return int(counter.get_total_flops())


def meta_twin(module: torch.nn.Module) -> torch.nn.Module:
    """A copy on the meta device that never copies the weights, however many there are."""
    memo: dict[int, torch.Tensor] = {}
    for parameter in module.parameters():
        twin = torch.nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        memo[id(parameter)] = twin
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(module, memo)


def transformer_cost(transformer: torch.nn.Module, latent_shape: tuple[int, ...], text_tokens: int) -> Flops:
    """FLOPs of an SD3 transformer per sample, with the parameters that train as they are now.

    Args:
        transformer: SD3Transformer2DModel, with or without LoRA. It is copied to the meta device, not run.
        latent_shape: (C, H, W).
        text_tokens: length of ``prompt_embeds``.
    """
    return _once(_transformer_cost, transformer, latent_shape, text_tokens)


def reference_cost(transformer: SD3Transformer2DModel, latent_shape: tuple[int, ...], text_tokens: int) -> Flops:
    """As ``transformer_cost``, of the weights under the adapters. A graph's backward is charged as through them."""
    cost = transformer_cost(transformer, latent_shape, text_tokens)
    with adapters_off(transformer):
        return Flops(transformer_cost(transformer, latent_shape, text_tokens).forward, cost.backward)


def _transformer_cost(transformer: torch.nn.Module, latent_shape: tuple[int, ...], text_tokens: int) -> Flops:
    twin = meta_twin(transformer)
    config: Any = transformer.config
    inputs = dict(
        hidden_states=torch.empty(1, *latent_shape, device="meta", requires_grad=False),
        encoder_hidden_states=torch.empty(1, text_tokens, config.joint_attention_dim, device="meta"),
        pooled_projections=torch.empty(1, config.pooled_projection_dim, device="meta"),
        timestep=torch.empty(1, device="meta"),
    )
    with torch.no_grad():
        forward = count(lambda: twin(**inputs, return_dict=False))
    if not any(p.requires_grad for p in twin.parameters()):
        return Flops(forward, 0)
    with torch.enable_grad():
        both = count(lambda: twin(**inputs, return_dict=False)[0].sum().backward())
    return Flops(forward, both - forward)


def decode_cost(vae: torch.nn.Module, latent_shape: tuple[int, ...]) -> Flops:
    """FLOPs of decoding one picture, and of the gradient to its latents.

    Args:
        vae: on the meta device, with no weight that trains.
        latent_shape: (C, H, W).
    """
    return _once(_decode_cost, vae, latent_shape)


def _decode_cost(vae: torch.nn.Module, latent_shape: tuple[int, ...]) -> Flops:
    decode: Callable[[torch.Tensor], Any] = vae.decode  # type: ignore[assignment]
    latents = torch.empty(1, *latent_shape, device="meta", requires_grad=True)
    with torch.no_grad():
        forward = count(lambda: decode(latents))
    with torch.enable_grad():
        both = count(lambda: decode(latents).sample.sum().backward())
    return Flops(forward, both - forward)
