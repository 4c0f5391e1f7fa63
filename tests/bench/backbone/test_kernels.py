"""Fused operators give what the written-out ones give."""

from __future__ import annotations

import pytest
import torch
from diffusers import SD3Transformer2DModel
from fakes import TRANSFORMER

from bench.backbone import kernels


def inputs(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(3, 4, 4, 4, generator=draw).to(dtype),
        "encoder_hidden_states": torch.randn(3, 5, 32, generator=draw).to(dtype),
        "pooled_projections": torch.randn(3, 32, generator=draw).to(dtype),
        "timestep": torch.tensor([1.0, 400.0, 999.0]),
    }


@pytest.fixture
def model() -> SD3Transformer2DModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = SD3Transformer2DModel(**TRANSFORMER)
        for name, parameter in made.named_parameters():
            if "norm_" in name and parameter.ndim == 1:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return made


def test_a_fused_norm_is_the_written_out_one_and_so_is_its_gradient(model):
    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        out = model(**inputs(), return_dict=False)[0]
        out.pow(2).sum().backward()
        return out, [p.grad for p in model.parameters() if p.grad is not None]

    names, (out, gradients) = list(model.state_dict()), run()
    kernels.fuse(model)
    fused, same = run()
    assert list(model.state_dict()) == names
    torch.testing.assert_close(fused, out, rtol=1e-5, atol=1e-6)
    for a, b in zip(same, gradients, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-6


def test_every_norm_of_queries_and_keys_is_fused(model, monkeypatch):
    calls, plain = [], torch.nn.functional.rms_norm
    monkeypatch.setattr(
        torch.nn.functional, "rms_norm", lambda *given, **named: calls.append(given[0]) or plain(*given, **named)
    )
    kernels.fuse(model)
    with torch.no_grad():
        model(**inputs(), return_dict=False)
    norms = [name for name, _ in model.named_parameters() if "attn" in name and "norm_" in name]
    assert len(calls) == len(norms) > 4


def test_frozen_weights_in_bfloat16_are_normed_in_float32(model):
    kernels.fuse(model.bfloat16())
    norm = next(m for m in model.modules() if type(m).__name__ == "FusedRMSNorm")
    x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(2)).bfloat16()
    wide = x.double()
    expected = wide / (wide.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight.double()
    assert norm(x).dtype == torch.float32
    torch.testing.assert_close(norm(x).double(), expected, rtol=1e-6, atol=1e-6)
