"""SOAR's step against a loop that does what the released code does. ``python perf/soar.py [--json]``.

The reference does what Tencent-Hunyuan/HY-SOAR @ 59f0e02 (``soar/train_soar_sd3_5m.py``) does per step, in our words:
text and pictures are encoded in every step; the rollout runs both guidance branches with a graph, although nothing
flows back through it; the auxiliary points are forwarded one by one; one backward ends the step, so all graphs live
until then, the rollout's too. Its batch per device is the released command's 4, accumulated to the global batch.

Where that code's *numbers* differ from the paper's formula, the reference follows the formula, so that both sides have
the same loss: latents are the posterior's mean, a point's timestep is that of its sigma (not a table's), the target is
float32. None of these costs or saves time. Pictures lie in memory for the reference too, and its noise is drawn
beforehand; both favour it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from common import Figure
from torch import Tensor

RELEASED_BATCH = 4
"""Pairs per device and backward in the released command (``--train_batch_size 4`` on 8 GPUs: 32 in all)."""


@dataclass
class Models:
    """What the reference loop calls: bare modules, nothing of the harness."""

    transformer: torch.nn.Module
    vae: Any
    texts: Any
    """A StableDiffusion3Pipeline without transformer and VAE."""
    null: tuple[Tensor, Tensor]
    max_sequence_length: int
    shift: float
    autocast: Callable[[], Any] = nullcontext

    def encode_texts(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """prompt_embeds and pooled_prompt_embeds, by the pipeline's own three encoders."""
        prompts = list(captions)
        embeds, _, pooled, _ = self.texts.encode_prompt(
            prompts, prompts, prompts, do_classifier_free_guidance=False, max_sequence_length=self.max_sequence_length
        )
        return embeds.float(), pooled.float()

    def encode_pictures(self, pictures: np.ndarray) -> Tensor:
        """Latents of uint8 (N, H, W, 3) pictures; the VAE stays in float32, as released."""
        device = next(self.transformer.parameters()).device
        pixels = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        mean = self.vae.encode(pixels).latent_dist.mode()
        return (mean - self.vae.config.shift_factor) * self.vae.config.scaling_factor

    def velocity(self, z: Tensor, sigma: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
        """One forward of the transformer: float32 (N, C, H, W)."""
        with self.autocast():
            out: Tensor = self.transformer(
                hidden_states=z,
                encoder_hidden_states=text[0],
                pooled_projections=text[1],
                timestep=1000 * sigma,
                return_dict=False,
            )[0]
        return out.float()


@dataclass
class Draws:
    """The random numbers of one step: noise (N, C, H, W), times (N,) before the shift, levels (N, K) in [0, 1)."""

    noise: Tensor
    time: Tensor
    levels: Tensor


def reference_step(
    models: Models,
    pictures: np.ndarray,
    captions: Sequence[str],
    draws: Draws,
    *,
    batch: int = RELEASED_BATCH,
    guidance_scale: float = 4.5,
    rollout_steps: int = 40,
    aux_weight: float = 1.0,
) -> float:
    """Gradients of one global batch, ``batch`` pairs per backward; returns the loss. ODE rollout, shared noise."""
    points = draws.levels.shape[1]
    items = len(pictures) * (1 + aux_weight * points)
    total = 0.0
    for rows in torch.arange(len(pictures)).split(batch):
        with torch.no_grad():
            z0 = models.encode_pictures(pictures[rows.numpy()])
            text = models.encode_texts([captions[i] for i in rows.tolist()])
        z1, time = draws.noise[rows], draws.time[rows]
        sigma, sigma_next = (_shifted(t, models.shift) for t in (time, (time - 1 / rollout_steps).clamp_min(0)))
        z = (1 - _wide(sigma)) * z0 + _wide(sigma) * z1
        loss = _error(models.velocity(z, sigma, text), z1 - z0).sum()
        # Both branches, with a graph that ``rollout`` keeps alive until the next round although it is never used.
        both = tuple(torch.cat([part.expand_as(own), own]) for part, own in zip(models.null, text, strict=True))
        rollout = models.velocity(torch.cat([z, z]), torch.cat([sigma, sigma]), (both[0], both[1]))
        without, conditional = rollout.chunk(2)
        guided = (without + guidance_scale * (conditional - without)).detach()
        landing = z + _wide(sigma_next - sigma) * guided
        for draw in draws.levels[rows].T:
            level = sigma_next + (1 - sigma_next) * draw.clamp_min(1e-3)
            share = _wide((level - sigma_next) / (1 - sigma_next))
            point = (1 - share) * landing + share * z1
            loss = loss + aux_weight * _error(models.velocity(point, level, text), (point - z0) / _wide(level)).sum()
        (loss / items).backward()
        total += loss.item() / items
    return total


def _shifted(time: Tensor, shift: float) -> Tensor:
    return shift * time / (1 + (shift - 1) * time)


def _wide(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)


def _error(velocity: Tensor, target: Tensor) -> Tensor:
    return ((velocity - target) ** 2).mean((1, 2, 3))


# -- the two sides ---------------------------------------------------------------------------------------------------


class Reference:
    """The reference loop with its own weights and optimizer, fed what the harness is fed."""

    def __init__(self, backbone: Any, pictures: np.ndarray, captions: Sequence[str], twin: Any, method: Any) -> None:
        self.models = models_of(backbone, twin)
        self.pictures, self.captions, self.twin, self.config = pictures, captions, twin, method.config
        self.batch = RELEASED_BATCH
        self.models.transformer.requires_grad_(True)
        self.parameters = list(self.models.transformer.parameters())
        c = self.config
        self.optimizer = torch.optim.AdamW(self.parameters, lr=c.lr, betas=c.betas, weight_decay=c.weight_decay)

    def prepare(self) -> None:
        """Draw the next step's batch and noise through a job's own doors, which give this job's twin the same."""
        self.rows, self.draws = draws_of(self.twin.job, self.config)
        self.twin.ledger.finish_step(0.0, 0)

    def gradients(self) -> float:
        """Forwards and backwards of the prepared step; returns the loss."""
        c = self.config
        return reference_step(
            self.models,
            self.pictures[self.rows.numpy()],
            [self.captions[i] for i in self.rows.tolist()],
            self.draws,
            batch=self.batch,
            guidance_scale=c.guidance_scale,
            rollout_steps=c.rollout_steps,
            aux_weight=c.aux_weight,
        )

    def step(self) -> float:
        """The whole prepared step; returns the loss."""
        loss = self.gradients()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss


def models_of(backbone: Any, session: Any) -> Models:
    """Bare modules with the backbone's weights on the job's device."""
    from diffusers import AutoencoderKL, StableDiffusion3Pipeline

    job, engine = session.job, session.engine
    device, null = job.device, job.policy.null
    texts = StableDiffusion3Pipeline.from_pretrained(backbone.folder, transformer=None, vae=None)
    for encoder in (texts.text_encoder, texts.text_encoder_2, texts.text_encoder_3):
        encoder.to(device, engine.dtype)  # as released: encoders in the compute precision, the VAE in float32
    vae = AutoencoderKL.from_pretrained(backbone.folder, subfolder="vae").eval().requires_grad_(False).to(device)
    return Models(
        transformer=backbone.transformer().to(device),
        vae=vae,
        texts=texts,
        null=(null.prompt_embeds, null.pooled_prompt_embeds),
        max_sequence_length=backbone.spec.max_sequence_length,
        shift=job.policy.shift,
        autocast=engine.autocast,
    )


def draws_of(job: Any, config: Any) -> tuple[Tensor, Draws]:
    """The pairs (N,) and the draws that SOAR takes from a job in its present step."""
    from bench import flow

    rows, parts = [], []
    for pairs in job.pairs(config.batch_size):
        time = flow.logit_normal_time(job.normal(pairs, "time"))
        parts.append(Draws(job.noise(pairs, "noise"), time, job.uniform(pairs, "levels-0", config.aux_points)))
        rows.append(pairs.indices)
    return torch.cat(rows), Draws(*(torch.cat([getattr(p, name) for p in parts]) for name in Draws.__annotations__))


def training_data(backbone: Any, pictures: np.ndarray, captions: Sequence[str]) -> Any:
    """The pairs as the harness keeps them: encoded once, in memory."""
    from bench.suite import Prompt
    from bench.training.data import TrainingData

    latents = backbone.encode_images(pictures)
    return TrainingData(
        latents=latents,
        shapes=torch.tensor(latents.shape[1:]).expand(len(latents), -1),
        text=backbone.encode_prompts(captions),
        prompts=tuple(Prompt(str(i), text) for i, text in enumerate(captions)),
        text_of=torch.arange(len(captions)),
    )


def both_sides(
    backbone: Any,
    device: torch.device,
    *,
    batch_size: int,
    micro_batch: int | None = None,
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
) -> tuple[Reference, Any, Any]:
    """(reference, job, method): equal weights, data and noise; the method is set up on its job."""
    from bench.experiment.config import method_config
    from bench.experiment.session import Session
    from bench.machine.engine import Compute, Engine
    from methods.soar import SOAR

    captions = common.captions(2 * batch_size)
    side = backbone.spec.resolution
    pictures = np.random.default_rng(0).integers(0, 256, (len(captions), side, side, 3), np.uint8)
    data, null = training_data(backbone, pictures, captions), backbone.encode_prompts([""])
    engine = Engine(device=device, dtype=dtype)

    def session(**compute: Any) -> Any:
        return Session.of(backbone=backbone, null=null, data=data, seed=0, engine=engine, compute=Compute(**compute))

    method = SOAR(method_config(SOAR, backbone.spec.scale, {"batch_size": batch_size}))
    ours = session(micro_batch=micro_batch, compile=compiled)
    method.setup(ours.job)
    return Reference(backbone, pictures, captions, session(), method), ours, method


def step(method: Any, session: Any) -> float:
    """One step of the harness; returns the loss it logs."""
    method.step(session.job)
    return float(session.ledger.finish_step(0.0, 0)["loss"])


def main() -> None:
    """Compare losses, gradients, memory and speed; print a table; write JSON if asked to."""
    parser = common.parser(__doc__)
    parser.add_argument("--batch", type=int, default=32, help="pairs per update on both sides")
    parser.add_argument("--micro-batch", type=int, default=16, help="samples per forward with a graph, in the harness")
    parser.add_argument(
        "--reference-batch", type=int, default=RELEASED_BATCH, help="the reference's pairs per backward"
    )
    arguments = parser.parse_args()
    device = common.start(arguments)
    with tempfile.TemporaryDirectory() as folder:
        backbone = common.backbone(arguments, Path(folder), device)
        figures = _figures(arguments, device, backbone)
    notes = [f"reference: {arguments.reference_batch} pairs per backward; harness: {arguments.micro_batch} per forward"]
    common.tell("soar", figures, notes, arguments, device)


def _figures(arguments: Any, device: torch.device, backbone: Any) -> list[Figure]:
    def sides(compiled: bool) -> tuple[Reference, Any, Any]:
        return both_sides(
            backbone,
            device,
            batch_size=arguments.batch,
            micro_batch=arguments.micro_batch,
            compiled=compiled,
            dtype=getattr(torch, arguments.dtype),
        )

    reference, session, method = sides(False)
    reference.batch = arguments.reference_batch
    theirs, ours = first_updates(reference, method, session)
    reference.step()
    runs: dict[str, Callable[[], object]] = {"reference": reference.step, "harness": lambda: step(method, session)}
    held = common.peak_activation(reference.step, device, reference.parameters)
    needed = common.peak_activation(runs["harness"], device, session.job.parameters)
    if arguments.compile:
        _, compiled, other = sides(True)
        runs["compiled"] = lambda: step(other, compiled)
    seconds = common.alternate(runs, arguments.repeats, device, cpu_time=arguments.cpu_time)
    return [
        Figure("loss of the first step, reference", theirs.loss),
        Figure("loss of the first step, harness", ours.loss),
        Figure("relative difference of the losses", abs(ours.loss - theirs.loss) / theirs.loss, "", "round-off"),
        Figure("relative difference of the gradients", common.distance(theirs, ours), "", "round-off"),
        Figure("peak activation memory, reference", held / 2**20, "MiB"),
        Figure("peak activation memory, harness", needed / 2**20, "MiB"),
        Figure("peak activation memory, harness / reference", needed / held, "", "<= 0.5"),
        *common.speeds(seconds, arguments.batch, "samples", ">= 2"),
    ]


def first_updates(reference: Reference, method: Any, session: Any) -> tuple[common.Update, common.Update]:
    """Loss and gradients of the first update after equal weights, of both sides."""
    reference.prepare()
    loss = reference.gradients()
    theirs = common.Update(loss, [p.grad.clone() for p in reference.parameters])
    reference.optimizer.zero_grad()
    return theirs, common.first_update(session, lambda: step(method, session))


if __name__ == "__main__":
    main()
