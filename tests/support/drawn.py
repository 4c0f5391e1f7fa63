"""Pictures of the world with their prompts, and other things that tests of metrics share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from bench import registry
from bench.errors import BenchError
from bench.metric import Metric
from bench.rng import numpy_generator
from bench.suite import Prompt
from benchmarks import world_prompts
from data_curation.world import scene
from data_curation.world import vocabulary as V
from data_curation.world.render import render


def drawn() -> tuple[list[np.ndarray], list[Prompt]]:
    """24 scenes of the world, four per task."""
    rng = numpy_generator(5, 0, 0, "pinned")
    prompts = [prompt for tag in V.TASKS for prompt in scene.all_prompts(tag)[:: len(scene.all_prompts(tag)) // 4][:4]]
    pictures = [render(scene.compose(prompt, rng, style=0.7)) for prompt in prompts]
    return pictures, [world_prompts.as_prompt(prompt, i) for i, prompt in enumerate(prompts)]


def words() -> list[str]:
    """Those of the prompts of ``drawn``."""
    return sorted({word for prompt in drawn()[1] for word in prompt.text.split()})


def smooth(count: int = 3, side: int = 96) -> list[np.ndarray]:
    """Pictures without edges, so that ways of resizing differ little."""
    rng = numpy_generator(8, 0, 0, "smooth")
    row, column = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(2 * np.pi * (row * rng.uniform(0, 2) + column * rng.uniform(0, 2))) for _ in range(3 * count)]
    pictures = 127.5 + 100 * np.stack(waves).reshape(count, 3, side, side)
    return [picture.transpose(1, 2, 0).round().astype(np.uint8) for picture in pictures]


def as_pixels(pictures: list[np.ndarray]) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1], with a gradient."""
    return (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255).requires_grad_()


def metric(name: str) -> Metric:
    made: Metric = registry.load("metrics", name)()
    return made


def one_line(call: Callable[[], object]) -> str:
    """What the call says when it is refused, which is one line."""
    with pytest.raises(BenchError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_on_a_gpu(judge: Metric, value: float) -> None:
    """The mean of ``drawn`` is the CPU's on a GPU, although training has chosen TF32, and so is the gradient's form."""
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        pictures, prompts = drawn()
        assert float(np.mean(judge.score(pictures, prompts))) == pytest.approx(value, abs=2e-4)
        pixels = as_pixels(pictures).detach().cuda().requires_grad_()
        scores = judge.differentiable_score(pixels, prompts)
        assert scores.device == pixels.device
        assert float(scores.mean()) == pytest.approx(value, abs=1e-2)
        assert torch.isfinite(torch.autograd.grad(scores.sum(), pixels)[0]).all()
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def check_gradient(judge: Metric, near: float, side: int = 96) -> float:
    """Its differentiable form agrees with ``score`` on smooth pictures, and its gradient with finite differences.

    Returns:
        How much a picture's score depends on the pictures beside it: the norm of that gradient.
    """
    pictures = smooth(side=side)
    prompts = drawn()[1][: len(pictures)]
    pixels = as_pixels(pictures)
    scores = judge.differentiable_score(pixels, prompts)
    np.testing.assert_allclose(scores.detach().numpy(), judge.score(pictures, prompts), atol=near, rtol=0)
    (of_the_first,) = torch.autograd.grad(scores[0], pixels, retain_graph=True)
    (gradient,) = torch.autograd.grad(scores.sum(), pixels)
    assert torch.isfinite(gradient).all()
    size = gradient.flatten(1).norm(dim=1)
    assert (size > 0).all()
    step = gradient / size.reshape(-1, 1, 1, 1)
    with torch.no_grad():
        ahead, behind = (judge.differentiable_score(pixels + way * 0.01 * step, prompts) for way in (1, -1))
    np.testing.assert_allclose((ahead - behind).numpy() / 0.02, size.numpy(), rtol=0.02)
    return float(of_the_first[1:].norm())
