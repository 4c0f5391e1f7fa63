"""SD3.5-Medium at full size on one CUDA GPU, with random weights. ``python perf/sd35_medium.py [--json]``.

Measured in one run: the matrix rate of the GPU (bf16 product of two 8192 x 8192 matrices), an SFT step's share of it,
and how many SFT steps of the same batch a SOAR step takes. A step's FLOPs are the meter's (matrix products of forwards
and backwards, no recomputation), so the share is a model FLOPs utilisation; its time includes noise, reading, clipping
and AdamW. Both steps go through ``bench.job.Job``, as in a run.

Without CUDA the same is done with a transformer shrunk to a few seconds on a CPU, in float32. Its figures say nothing
about SD3.5-Medium, and say so.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from dataclasses import dataclass
from typing import Any

import common
import torch
from common import Figure

CONFIG = dict(
    sample_size=128,
    patch_size=2,
    in_channels=16,
    out_channels=16,
    num_layers=24,
    attention_head_dim=64,
    num_attention_heads=24,
    joint_attention_dim=4096,
    caption_projection_dim=1536,
    pooled_projection_dim=2048,
    pos_embed_max_size=384,
    dual_attention_layers=tuple(range(13)),
    qk_norm="rms_norm",
)
"""``transformer/config.json`` of stabilityai/stable-diffusion-3.5-medium: 2.243 B parameters."""

SHRUNK = CONFIG | dict(
    num_layers=4,
    num_attention_heads=4,
    joint_attention_dim=512,
    caption_projection_dim=256,
    pooled_projection_dim=256,
    dual_attention_layers=(0, 1),
)
"""What a CPU can do in a second."""


@dataclass
class RandomBackbone:
    """Stands in for a ``Backbone`` whose transformer has random weights and was never on a disk."""

    config: dict[str, Any]
    device: torch.device
    latent_shape: tuple[int, int, int]

    def transformer(self) -> Any:
        from diffusers import SD3Transformer2DModel

        torch.manual_seed(0)
        with self.device:
            return SD3Transformer2DModel(**self.config).eval()

    def scheduler(self) -> Any:
        from diffusers import FlowMatchEulerDiscreteScheduler

        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int, *, cpu_time: bool = False) -> float:
    """FLOP/s of a product of two square matrices: the median of ten, after three that are not counted.

    Args:
        cpu_time: as in ``common.alternate``. What is held against the rate must be counted by the same clock.
    """
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        left @ right
    product = {"product": lambda: left @ right}
    seconds = [common.alternate(product, 1, device, cpu_time=cpu_time)["product"] for _ in range(10)]
    return 2 * size**3 / statistics.median(seconds)


@dataclass
class Cost:
    """What a method's step costs: seconds, FLOPs, and bytes beyond weights and optimizer; and what it trains."""

    seconds: float
    flops: int
    memory: int
    parameters: int


def training_data(backbone: RandomBackbone, pairs: int, tokens: int) -> tuple[Any, Any]:
    """(random pairs with a caption each, an empty prompt's condition)."""
    from bench.backbone.loader import TextCondition
    from bench.training.data import TrainingData

    generator, config = torch.Generator().manual_seed(0), backbone.config

    def text(rows: int) -> TextCondition:
        embeds = torch.randn(rows, tokens, config["joint_attention_dim"], generator=generator)
        return TextCondition(embeds, torch.randn(rows, config["pooled_projection_dim"], generator=generator))

    data = TrainingData(
        latents=torch.randn(pairs, *backbone.latent_shape, generator=generator),
        shapes=torch.tensor(backbone.latent_shape).expand(pairs, -1),
        text=text(pairs),
        prompts=(),
        text_of=torch.arange(pairs),
    )
    return data, text(1)


def cost(name: str, backbone: Any, data: Any, null: Any, arguments: argparse.Namespace) -> Cost:
    """A method's step, measured on a job of its own that is gone afterwards."""
    from bench import registry
    from bench.experiment.config import method_config
    from bench.experiment.session import Session
    from bench.machine.engine import Compute, Engine

    kind = registry.load("methods", name)
    compute = Compute(
        micro_batch=arguments.micro_batch,
        gradient_checkpointing=arguments.gradient_checkpointing,
        compile=arguments.compile,
    )
    engine = Engine(device=backbone.device, dtype=getattr(torch, arguments.dtype))
    session = Session.of(backbone=backbone, null=null, data=data, seed=0, engine=engine, compute=compute)
    job = session.job
    method = kind(method_config(kind, "full", {"batch_size": arguments.batch}))
    method.setup(job)

    def step() -> None:
        method.step(job)
        session.ledger.finish_step(0.0, 0)

    step()
    flops = job.meter.flops
    memory = common.peak_activation(step, backbone.device, job.parameters)
    seconds = common.alternate({name: step}, arguments.repeats, backbone.device)[name]
    return Cost(seconds, flops, memory, sum(p.numel() for p in job.parameters))


def main() -> None:
    """Measure, print a table, write JSON if asked to."""
    parser = common.parser(__doc__, models=False)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--batch", type=int, help="pairs per update (default: 32; on a CPU 4)")
    parser.add_argument("--micro-batch", type=int, help="samples per forward with a graph (default: 8; on a CPU 4)")
    parser.add_argument("--tokens", type=int, default=333, help="text tokens: 77 of CLIP and 256 of T5")
    arguments = parser.parse_args()
    device = common.start(arguments)
    full = device.type == "cuda"
    if not full:
        print("no CUDA here: a transformer shrunk to a CPU's measure stands in; its figures are not SD3.5-Medium's")
    arguments.batch = arguments.batch or (32 if full else 4)
    arguments.micro_batch = arguments.micro_batch or (8 if full else 4)
    arguments.dtype = arguments.dtype or ("bfloat16" if full else "float32")
    side = 64 if full else 16
    backbone = RandomBackbone(CONFIG if full else SHRUNK, device, (16, side, side))
    figures, notes = _figures(backbone, arguments, device, full)
    common.tell("sd35_medium" if full else "sd35_medium-stand-in", figures, notes, arguments, device)


def _figures(
    backbone: RandomBackbone, arguments: argparse.Namespace, device: torch.device, full: bool
) -> tuple[list[Figure], list[str]]:
    rate = matrix_rate(device, getattr(torch, arguments.dtype), 8192 if full else 1024)
    data, null = training_data(backbone, 2 * arguments.batch, arguments.tokens)
    costs = {}
    for name in ("sft", "soar"):  # one after the other: weights and optimizer states of one are 27 GB
        costs[name] = cost(name, backbone, data, null, arguments)
        gc.collect()
        if full:
            torch.cuda.empty_cache()
    sft, soar = costs["sft"], costs["soar"]
    what, goals = ("SD3.5-Medium", (">= 45", "<= 8")) if full else ("CPU stand-in", ("", ""))
    figures = [
        Figure(f"{what}: parameters", sft.parameters / 1e9, "B"),
        Figure(f"matrix rate, {arguments.dtype}", rate / 1e12, "TFLOP/s"),
        Figure(f"{what}: SFT step", sft.seconds, "s"),
        Figure(f"{what}: SFT, samples per second", arguments.batch / sft.seconds, "samples/s"),
        Figure(f"{what}: SFT step, share of the matrix rate", 100 * sft.flops / sft.seconds / rate, "%", goals[0]),
        Figure(f"{what}: SOAR step", soar.seconds, "s"),
        Figure(f"{what}: SOAR step, share of the matrix rate", 100 * soar.flops / soar.seconds / rate, "%"),
        Figure(f"{what}: SOAR step / SFT step", soar.seconds / sft.seconds, "", goals[1]),
        Figure(f"{what}: SFT, peak beyond weights and optimizer", sft.memory / 2**30, "GiB"),
        Figure(f"{what}: SOAR, peak beyond weights and optimizer", soar.memory / 2**30, "GiB"),
    ]
    notes = [f"{arguments.batch} pairs a step, {arguments.micro_batch} samples per forward"]
    if not full:
        notes.append("no CUDA on this machine: nothing here is a figure of SD3.5-Medium")
    return figures, notes


if __name__ == "__main__":
    main()
