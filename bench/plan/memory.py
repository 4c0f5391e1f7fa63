"""Memory that one GPU needs in training, by a stated model: rough, since allocators fragment and kernels take room.

In bytes, T parameters that train, F that do not, n processes:

| part | bytes |
| --- | --- |
| weights that train, float32 | 4 T; a share of n with ``fsdp`` |
| frozen weights, in the precision of matrix products | 2 F or 4 F |
| gradients, float32 | 4 T, a share of n with ``fsdp``; DDP keeps them once more in its buckets |
| AdamW | 8 T (2 T with 8 bits), a share of n with ``fsdp`` |
| averages and other copies | what the method and the job hold after ``setup``, a share of n with ``fsdp`` |
| bfloat16 copies of weights | 2 T, which autocast keeps; with ``fsdp`` of two blocks at a time |
| activations | what autograd saves for a sample, counted on fake tensors, times the samples in graphs at once |
| the VAE's, where a reward has a gradient | the same for one picture, in float32 |

With gradient checkpointing a block saves its inputs only, and one block at a time is computed anew. Sharding applies to
full fine-tunes; an adapter is kept whole on each GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bench.plan.architecture import Architecture
from bench.plan.probe import Trained

CONTEXT = 2**30
"""CUDA context, kernels' workspaces and what NCCL holds: about 1 GiB."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU in training."""

    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.copies + self.activations + CONTEXT


def training_memory(
    trained: Trained, activations: int, *, layers: int, low: bool, adam_8bit: bool, sharded: bool, gpus: int
) -> Memory:
    """The table above.

    Args:
        activations: bytes of all samples in graphs at once.
        layers: blocks of the transformer.
        low: matrix products are in bfloat16.
        sharded: ``fsdp``.
    """
    count, shards = trained.trained, gpus if sharded and not trained.frozen else 1
    gradients = 4 * (2 if gpus > 1 and shards == 1 else 1)
    gathered = 2 * count // layers if shards > 1 else 0  # of two blocks
    return Memory(
        weights=4 * count // shards + (2 if low else 4) * trained.frozen,
        gradients=gradients * count // shards,
        optimizer=(2 if adam_8bit else 8) * count // shards,
        copies=trained.copies // shards + (2 if low else 4) * gathered + (2 * count if low and shards == 1 else 0),
        activations=activations,
    )


def saved_for_backward(architecture: Architecture, *, low: bool, checkpointing: bool) -> int:
    """Bytes that autograd saves for a sample: counted on the architecture, without memory for it."""
    from diffusers import SD3Transformer2DModel
    from torch._subclasses.fake_tensor import FakeTensorMode

    # Fake tensors on the CPU take the fused attention, as a GPU does; the meta device would save every score.
    with FakeTensorMode():
        model = SD3Transformer2DModel.from_config(architecture.transformer)
        inside = _per_sample(model, architecture, low=low)
        if not checkpointing:
            return inside
        model.train().enable_gradient_checkpointing()
        return _per_sample(model, architecture, low=low) + inside // int(architecture.transformer["num_layers"])


def _per_sample(model: torch.nn.Module, architecture: Architecture, *, low: bool) -> int:
    """Two batch sizes are compared, so that copies of weights do not count."""
    one, two = (_saved(model, architecture, samples, low=low) for samples in (1, 2))
    return two - one


def saved_for_decode(architecture: Architecture) -> int:
    """Bytes that autograd saves when a picture is decoded with a gradient to its latents; others are computed anew."""
    from diffusers import AutoencoderKL
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        vae = AutoencoderKL.from_config(architecture.vae).eval().requires_grad_(False)
        latents = torch.empty(1, *architecture.latent_shape(), requires_grad=True)
        return _saved_bytes(lambda: vae.decode(latents), vae)


def _saved(model: torch.nn.Module, architecture: Architecture, samples: int, *, low: bool) -> int:
    config = architecture.transformer
    inputs = dict(
        hidden_states=torch.empty(samples, *architecture.latent_shape()),
        encoder_hidden_states=torch.empty(samples, architecture.text_tokens, config["joint_attention_dim"]),
        pooled_projections=torch.empty(samples, config["pooled_projection_dim"]),
        timestep=torch.empty(samples),
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        return _saved_bytes(lambda: model(**inputs, return_dict=False), model)


def _saved_bytes(run: Callable[[], Any], model: torch.nn.Module) -> int:
    """Bytes that autograd saves in a forward, but for the model's weights."""
    sizes, alive = {}, []

    def pack(saved: torch.Tensor) -> torch.Tensor:
        storage = saved.untyped_storage()
        sizes[storage._cdata] = storage.nbytes()
        alive.append(saved)  # alive, so that no other storage can take its address
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        run()
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    return sum(size for storage, size in sizes.items() if storage not in weights)
