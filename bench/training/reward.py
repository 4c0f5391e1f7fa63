"""A metric as a job's reward: scored on a thread where a GPU samples, and held to what a reward must return."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError, JobFailure
from bench.metric import checked

if TYPE_CHECKING:
    from bench.machine.engine import Engine
    from bench.metric import Metric
    from bench.prompt import Prompt
    from bench.training.needs import Needs


class Reward:
    """Scores by a metric. One that returns anything but a finite number for each picture ends the job, everywhere.

    Attributes:
        scores: whether the method may ask for scores.
        traced: whether it may ask for their gradient.
    """

    def __init__(self, metric: Metric, engine: Engine) -> None:
        self.metric, self._engine = metric, engine
        self.scores = self.traced = True
        self._thread: ThreadPoolExecutor | None = None

    def grant(self, needs: Needs) -> None:
        """Score for a method that declared it, and no other."""
        self.scores, self.traced = needs.reward or needs.differentiable_reward, needs.differentiable_reward

    def flops(self, images: int) -> int:
        """What scoring costs."""
        return round(self.metric.flops_per_image * images)

    def later(self, images: np.ndarray, prompts: Sequence[Prompt]) -> Callable[[], Tensor]:
        """A call that waits for the scores (N,) of images; every process must make it."""
        if self._engine.device.type == "cuda":  # preparing pictures and reading signs are the CPU's work
            if self._thread is None:
                self._thread = self._engine.thread("reward")
            scored: Future[Any] = self._thread.submit(self.metric.score, list(images), prompts)
        else:
            scored = Future()
            scored.set_result(self.metric.score(list(images), prompts))
        return lambda: self._checked(scored.result(), len(images))

    def differentiable(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Scores (N,) of pictures (N, 3, H, W) in [0, 1], with a gradient to them unless gradients are off."""
        traced = torch.is_grad_enabled() and pixels.requires_grad
        return self._checked(self.metric.differentiable_score(pixels, prompts), len(pixels), traced=traced)

    def close(self) -> None:
        """End the thread that scores."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _checked(self, scores: Any, count: int, *, traced: bool | None = None) -> Tensor:
        """Scores (count,) in float32, or the end of the job.

        Args:
            traced: whether a gradient must lead through them; None: they are any list of numbers.
        """
        problem, result = None, torch.zeros(count)
        try:
            result = torch.tensor(checked(scores, count), dtype=torch.float32) if traced is None else scores
            if not isinstance(result, Tensor):
                problem = f"returned {reprlib.repr(scores)}, not a tensor"
            elif result.shape != (count,):
                problem = f"returned shape {tuple(result.shape)} for {count} images"
            elif not torch.isfinite(result).all():
                problem = "returned NaN or infinity"
            elif traced and not result.requires_grad:
                problem = "returned scores without a gradient to the pictures"
        except BenchError as error:
            problem = str(error)
        self._engine.fail_together(problem and f"the reward {self.metric.name} {problem}", JobFailure)
        return result.to(self._engine.device)
