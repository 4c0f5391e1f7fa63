"""How near to the limit methods and evaluations come. ``python perf/utilisation.py --backbone shrunk --width 512``.

The limit is the matrix rate: products of two large square matrices, measured in the same run on the same threads. What
is reached are the FLOPs that the meter charges (matrix products of forwards, backwards and the VAE; recomputation and
element-wise work are not in it) over the seconds that the step takes, noise, reading, clipping and AdamW included.

At small widths other things than products take the time: choose a width from 512 on, and one thread per core.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import torch
from common import Figure
from operators import IMAGES, METHODS, started
from sd35_medium import matrix_rate

EVALUATION_STEPS = 10
"""Of the sampler, with guidance: a quarter of the paper's 40, which take as long each."""


def rate_of(run: Callable[[], object], session: Any, arguments: Any, device: torch.device) -> tuple[float, float]:
    """(FLOP/s, seconds) of something that the session's meter charges the same in each run."""
    before = session.job.meter.flops
    seconds = common.alternate({"run": run}, arguments.repeats, device, cpu_time=arguments.cpu_time)["run"]
    flops = (session.job.meter.flops - before) / (arguments.repeats + 1)  # the run that is not timed is charged too
    return flops / seconds, seconds


def step_of(session: Any, method: Any) -> Callable[[], object]:
    """A step of a method, to its end."""

    def step() -> None:
        method.step(session.job)
        session.ledger.finish_step(0.0, 0)

    return step


def evaluation_of(session: Any) -> Callable[[], object]:
    """Sampling and decoding of ``IMAGES`` pictures, as an evaluation does."""
    job = session.job
    text = job.policy.null.expand(IMAGES)
    noise = torch.randn(IMAGES, *job.latent_shape, generator=torch.Generator().manual_seed(0)).to(job.device)
    return lambda: job.decode(job.sample(noise, text, steps=EVALUATION_STEPS, guidance_scale=4.5))


def measure(backbone: Any, arguments: Any, device: torch.device, *, size: int) -> list[Figure]:
    """The matrix rate before and after, and each method's and an evaluation's share of their mean.

    Args:
        size: side of the matrices.
    """
    from bench.machine.engine import Engine

    dtype = getattr(torch, arguments.dtype)
    engine = Engine(device=device, dtype=dtype)
    rates = [matrix_rate(device, dtype, size, cpu_time=arguments.cpu_time)]
    reached: dict[str, tuple[float, float]] = {}
    for name in METHODS:
        session, method = started(
            name, backbone, micro_batch=arguments.micro_batch, engine=engine, compiled=arguments.compile
        )
        reached[name] = rate_of(step_of(session, method), session, arguments, device)
        if name == "sft":
            with backbone.vae_loaded():
                reached["evaluation"] = rate_of(evaluation_of(session), session, arguments, device)
        session.close()
    rates.append(matrix_rate(device, dtype, size, cpu_time=arguments.cpu_time))
    rate = statistics.mean(rates)
    figures = [Figure(f"matrix rate, {arguments.dtype}", rate / 1e9, "GFLOP/s")]
    figures.append(Figure("matrix rate, change over the run", 100 * (rates[1] / rates[0] - 1), "%"))
    for name, (flops, seconds) in reached.items():
        figures.append(Figure(f"{name}: {IMAGES} images", seconds, "s"))
        figures.append(Figure(f"{name}: reached", flops / 1e9, "GFLOP/s"))
        figures.append(Figure(f"{name}: share of the matrix rate", 100 * flops / rate, "%"))
    return figures


def main() -> None:
    """Measure, print a table, write JSON if asked to."""
    parser = common.parser(__doc__)
    parser.add_argument("--micro-batch", type=int, default=4, help="rows per forward with a graph")
    arguments = parser.parse_args()
    device = common.start(arguments)
    with tempfile.TemporaryDirectory() as folder:
        backbone = common.backbone(arguments, Path(folder), device)
        figures = measure(backbone, arguments, device, size=8192 if device.type == "cuda" else 1024)
    notes = [f"{arguments.micro_batch} rows per forward with a graph; matrices as large as the device keeps busy"]
    common.tell("utilisation", figures, notes, arguments, device)


if __name__ == "__main__":
    main()
