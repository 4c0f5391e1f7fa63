"""Flow-GRPO's epoch against a loop that does what flow_grpo does. ``python perf/flow_grpo.py [--json]``.

The reference does what yifan123/flow_grpo @ ac4c86e (``scripts/train_sd3.py``, ``flow_grpo/diffusers_patch``) does per
epoch, in our words: prompts are encoded anew for every sampling batch; both guidance branches go through the model as
one batch, in sampling, in training and for the frozen reference; in training both have a graph although the
unconditional half is detached right after; log-probabilities are computed again for every timestep that trains, on
micro-batches of the sampling batch's size, each with a backward of its own; samples whose advantage is zero are
dropped. The whole trajectory is kept, before and after each step. Its batch per device is the released 9.

The reward is a number that costs nothing on either side; a real one costs both the same. Noise is drawn beforehand
for the reference, which favours it. Both sides take the same samples into the same update.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from common import Figure
from soar import Models, models_of
from torch import Tensor

from bench.metric import Metric

RELEASED_BATCH = 9
"""Images per device in sampling and in training (``general_ocr_sd3`` and its siblings in ``config/grpo.py``)."""


class Turns(Metric):
    """Scores that follow from an image's place in the epoch alone: no time, and the same on both sides to the last bit.

    A reward that looks at pixels would differ wherever a decoded value lies on the edge between two integers.
    """

    name, label, version = "turns", "Turns", 1

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Any]) -> list[float]:
        return [0.618034 * place % 1 for place in range(len(images))]


@dataclass
class Samples:
    """What an epoch samples, as flow_grpo keeps it: (N, T, C, H, W) latents before and after each step, and so on."""

    embeds: Tensor
    pooled: Tensor
    before: Tensor
    after: Tensor
    log_probs: Tensor
    images: np.ndarray


@dataclass
class Draws:
    """The random numbers of an epoch: start (N, C, H, W), steps (T, N, C, H, W)."""

    start: Tensor
    steps: Tensor


def moments(z: Tensor, velocity: Tensor, sigmas: Tensor, i: int, noise_level: float) -> tuple[Tensor, Tensor]:
    """Mean of the SDE step from ``sigmas[i]``, and the standard deviation per unit of time."""
    sigma, dt = sigmas[i], sigmas[i + 1] - sigmas[i]
    spread = noise_level * (sigma / (1 - (sigmas[1] if sigma == 1 else sigma))).sqrt()
    drift = 1 + spread**2 / (2 * sigma) * dt
    return z * drift + velocity * (1 + spread**2 * (1 - sigma) / (2 * sigma)) * dt, spread


def log_prob(value: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Gaussian log-density, the mean over latent dimensions: (N,)."""
    per_dim = -((value.detach() - mean) ** 2) / (2 * std**2) - torch.log(std) - math.log(math.sqrt(2 * math.pi))
    return per_dim.mean((1, 2, 3))


def guided(
    models: Models, z: Tensor, sigma: Tensor, text: tuple[Tensor, Tensor], scale: float, *, detach: bool = False
) -> Tensor:
    """Guided velocity, both branches in one batch. ``detach``: nothing flows back through the unconditional one."""
    both = tuple(torch.cat([part.expand_as(own), own]) for part, own in zip(models.null, text, strict=True))
    without, conditional = models.velocity(torch.cat([z, z]), sigma.expand(2 * len(z)), (both[0], both[1])).chunk(2)
    if detach:
        without = without.detach()
    return without + scale * (conditional - without)


@torch.no_grad()
def reference_samples(
    models: Models, captions: Sequence[str], draws: Draws, sigmas: Tensor, config: Any, *, batch: int = RELEASED_BATCH
) -> Samples:
    """Sample and decode one image per caption, ``batch`` at a time, encoding the captions of each batch."""
    parts = []
    for rows in torch.arange(len(captions)).split(batch):
        text = models.encode_texts([captions[i] for i in rows.tolist()])
        latents, log_probs = [draws.start[rows]], []
        for i in range(config.sampling_steps):
            velocity = guided(models, latents[-1], sigmas[i], text, config.guidance_scale)
            mean, spread = moments(latents[-1], velocity, sigmas, i, config.noise_level)
            std = spread * (sigmas[i] - sigmas[i + 1]).sqrt()
            latents.append(mean + std * draws.steps[i, rows])
            log_probs.append(log_prob(latents[-1], mean, std))
        stacked = torch.stack(latents, 1)
        parts.append(
            Samples(*text, stacked[:, :-1], stacked[:, 1:], torch.stack(log_probs, 1), _decode(models, latents[-1]))
        )
    tensors = [torch.cat([getattr(p, name) for p in parts]) for name in list(Samples.__annotations__)[:-1]]
    return Samples(*tensors, images=np.concatenate([p.images for p in parts]))


def _decode(models: Models, latents: Tensor) -> np.ndarray:
    config = models.vae.config
    pixels = models.vae.decode(latents / config.scaling_factor + config.shift_factor).sample
    image = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return image.permute(0, 2, 3, 1).cpu().numpy()


def reference_advantages(rewards: Tensor, prompts: int, clip: float) -> Tensor:
    """(N,) rewards, grouped by prompt, as advantages: less the group's mean, over the deviation of all."""
    groups = rewards.double().view(prompts, -1)
    centred = (groups - groups.mean(1, keepdim=True)) / (groups.std(correction=0) + 1e-4)
    return centred.clamp(-clip, clip).flatten().float()


def reference_gradients(
    models: Models,
    samples: Samples,
    advantages: Tensor,
    rows: Tensor,
    sigmas: Tensor,
    config: Any,
    *,
    batch: int = RELEASED_BATCH,
) -> float:
    """Gradients of one update on ``rows``, ``batch`` samples and one timestep per backward; returns the loss."""
    steps, total = config.sampling_steps - 1, 0.0
    for part in rows.split(batch):
        text = samples.embeds[part], samples.pooled[part]
        advantage = advantages[part]
        for i in range(steps):
            z, z_next = samples.before[part, i], samples.after[part, i]
            mean, spread = moments(
                z, guided(models, z, sigmas[i], text, config.guidance_scale, detach=True), sigmas, i, config.noise_level
            )
            std = spread * (sigmas[i] - sigmas[i + 1]).sqrt()
            ratio = torch.exp(log_prob(z_next, mean, std) - samples.log_probs[part, i])
            clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
            loss = torch.maximum(-advantage * ratio, -advantage * clipped).sum()
            if config.kl_weight:
                models.transformer.disable_adapters()
                with torch.no_grad():
                    frozen = guided(models, z, sigmas[i], text, config.guidance_scale)
                models.transformer.enable_adapters()
                frozen_mean, _ = moments(z, frozen, sigmas, i, config.noise_level)
                divergence = ((mean - frozen_mean) ** 2).mean((1, 2, 3)) / (2 * spread**2)
                loss = loss + config.kl_weight * divergence.sum()
            loss = loss / (len(rows) * steps)
            loss.backward()
            total += loss.item()
    return total


# -- the two sides ---------------------------------------------------------------------------------------------------


class Reference:
    """The reference loop with its own weights and optimizer, fed what the harness is fed."""

    def __init__(self, backbone: Any, twin: Any, method: Any) -> None:
        self.twin, self.config, self.batch = twin, method.config, RELEASED_BATCH
        method.setup(twin.job)  # the same adapter, with the same initial values
        self.models = models_of(backbone, twin)
        self.models.transformer = twin.model.policy.transformer
        self.parameters, self.optimizer = twin.job.parameters, twin.model.learner.optimizer
        self.sigmas = twin.model.policy.sigmas(self.config.sampling_steps)

    def prepare(self) -> None:
        """Draw the next epoch's prompts and noise through a job's own doors, which give this job's twin the same."""
        c, job = self.config, self.twin.job
        share = job.prompts(c.prompts, repeat=c.group_size)
        self.captions = [prompt.text for prompt in share.prompts]
        steps = [job.noise(share, f"sde-{i}") for i in range(c.sampling_steps)]
        self.draws = Draws(job.noise(share, "start"), torch.stack(steps))
        self.order = job.rng("order")
        self.twin.ledger.finish_step(0.0, 0)

    def sample(self) -> None:
        """The first half of the epoch."""
        c = self.config
        self.samples = reference_samples(self.models, self.captions, self.draws, self.sigmas, c, batch=self.batch)
        rewards = torch.tensor(Turns().score(list(self.samples.images), ()))
        self.advantages = reference_advantages(rewards, c.prompts, c.advantage_clip).to(self.draws.start.device)
        informative = torch.nonzero(self.advantages).flatten().cpu()
        shuffled = informative[torch.randperm(len(informative), generator=self.order.clone_state())]
        self.updates = shuffled.tensor_split(min(c.updates, max(len(informative), 1)))

    def gradients(self, update: int) -> float:
        """Forwards and backwards of an update; returns the loss."""
        rows = self.updates[update]
        return reference_gradients(
            self.models, self.samples, self.advantages, rows, self.sigmas, self.config, batch=self.batch
        )

    def epoch(self) -> list[float]:
        """The whole prepared epoch; returns each update's loss."""
        self.sample()
        losses = []
        for update in range(len(self.updates)):
            losses.append(self.gradients(update))
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return losses


def both_sides(
    backbone: Any,
    device: torch.device,
    *,
    settings: dict[str, Any],
    prompts: int,
    micro_batch: int | None = None,
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
) -> tuple[Reference, Any, Any]:
    """(reference, job, method): equal weights, prompts and noise; the adapters differ from zero.

    Args:
        settings: of the method, over its defaults for this backbone.
        prompts: different captions to draw from.
    """
    from bench.experiment.config import method_config
    from bench.experiment.session import Session
    from bench.machine.engine import Compute, Engine
    from bench.suite import Prompt
    from bench.training.data import TrainingData
    from methods.flow_grpo import FlowGRPO

    captions = common.captions(prompts)
    data = TrainingData(
        latents=None,
        shapes=torch.empty(0, 3, dtype=torch.long),
        text=backbone.encode_prompts(captions),
        prompts=tuple(Prompt(str(i), text) for i, text in enumerate(captions)),
        text_of=torch.empty(0, dtype=torch.long),
    )
    null, engine = backbone.encode_prompts([""]), Engine(device=device, dtype=dtype)

    def session(**compute: Any) -> Any:
        return Session.of(
            backbone=backbone,
            null=null,
            data=data,
            seed=0,
            reward=Turns(),
            engine=engine,
            compute=Compute(**compute),
        )

    def method() -> Any:
        return FlowGRPO(method_config(FlowGRPO, backbone.spec.scale, settings))

    ours, mine = session(micro_batch=micro_batch, compile=compiled), method()
    mine.setup(ours.job)
    reference = Reference(backbone, session(), method())
    for parameters in (ours.job.parameters, reference.parameters):
        _wake(parameters)
    return reference, ours, mine


@torch.no_grad()
def _wake(parameters: Sequence[Tensor]) -> None:
    """Give an adapter an effect: a fresh one is zero, and so would be the divergence from the reference policy."""
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters:
        parameter += 0.02 * torch.randn(parameter.shape, generator=generator).to(parameter.device)


def epoch(method: Any, session: Any) -> None:
    """One epoch of the harness."""
    method.step(session.job)
    session.ledger.finish_step(0.0, 0)


def main() -> None:
    """Compare losses, gradients, memory and speed; print a table; write JSON if asked to."""
    parser = common.parser(__doc__)
    parser.add_argument("--prompts", type=int, help="prompts per epoch (default: the method's for this backbone)")
    parser.add_argument("--group-size", type=int, help="images per prompt (default: likewise)")
    parser.add_argument("--sampling-steps", type=int, default=10, help="steps of the training sampler; flow_grpo's 10")
    parser.add_argument("--micro-batch", type=int, help="images per forward, in the harness (default: all)")
    parser.add_argument(
        "--reference-batch", type=int, default=RELEASED_BATCH, help="images per batch, in the reference"
    )
    arguments = parser.parse_args()
    device = common.start(arguments)
    names = ("prompts", "group_size", "sampling_steps")
    settings = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    with tempfile.TemporaryDirectory() as folder:
        backbone = common.backbone(arguments, Path(folder), device)
        figures = _figures(arguments, device, backbone, settings)
    notes = [
        f"reference: {arguments.reference_batch} images per batch; "
        f"harness: {arguments.micro_batch or 'all'} per forward",
        "the loss of a policy gradient is near zero by construction, so its difference is held against the mean "
        "absolute advantage",
    ]
    common.tell("flow_grpo", figures, notes, arguments, device)


def _figures(arguments: Any, device: torch.device, backbone: Any, settings: dict[str, Any]) -> list[Figure]:
    def sides(compiled: bool) -> tuple[Reference, Any, Any]:
        return both_sides(
            backbone,
            device,
            settings=settings,
            prompts=64,
            micro_batch=arguments.micro_batch,
            compiled=compiled,
            dtype=getattr(torch, arguments.dtype),
        )

    reference, session, method = sides(False)
    reference.batch = arguments.reference_batch
    theirs, ours = first_updates(reference, method, session)
    reference.prepare()
    scale = float(reference.advantages.abs().mean())
    runs: dict[str, Callable[[], object]] = {"reference": reference.epoch, "harness": lambda: epoch(method, session)}
    held = {name: common.peak_activation(run, device, session.job.parameters) for name, run in runs.items()}
    if arguments.compile:
        _, compiled, other = sides(True)
        runs["compiled"] = lambda: epoch(other, compiled)
    seconds = common.alternate(runs, arguments.repeats, device, cpu_time=arguments.cpu_time)
    images = reference.config.prompts * reference.config.group_size
    return [
        Figure("loss of the first update, reference", theirs.loss),
        Figure("loss of the first update, harness", ours.loss),
        Figure("difference of the losses / mean |advantage|", abs(ours.loss - theirs.loss) / scale, "", "round-off"),
        Figure("relative difference of the gradients", common.distance(theirs, ours), "", "round-off"),
        Figure("peak activation memory, reference", held["reference"] / 2**20, "MiB"),
        Figure("peak activation memory, harness", held["harness"] / 2**20, "MiB"),
        *common.speeds(seconds, images, "images", ">= 1.5"),
    ]


def first_updates(reference: Reference, method: Any, session: Any) -> tuple[common.Update, common.Update]:
    """Loss and gradients of the first update after equal weights, of both sides."""
    reference.prepare()
    reference.sample()
    loss = reference.gradients(0)
    theirs = common.Update(loss, [p.grad.clone() for p in reference.parameters])
    reference.optimizer.zero_grad()
    return theirs, common.first_update(session, lambda: epoch(method, session))


if __name__ == "__main__":
    main()
