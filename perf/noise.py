"""What it costs to draw noise. ``python perf/noise.py [--json]``.

Noise is drawn on the host by a generator for each row (``bench/rng.py``), when a method asks for it. Two shares are
told: of a step of SFT of the backbone, measured here, and of a sample of SD3.5-Medium at ``--samples-per-second``. The
second is what a GPU would lose if it waited for every draw.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import common
import torch
from common import Figure
from loading import BIG, SFT_RATE
from operators import IMAGES, started
from utilisation import step_of


def measure(backbone: Any, arguments: Any, device: torch.device) -> list[Figure]:
    """Milliseconds to draw a row, and their shares of a step."""
    from bench import matching
    from bench.machine.engine import Engine

    engine = Engine(device=device, dtype=getattr(torch, arguments.dtype))
    session, method = started("sft", backbone, micro_batch=None, engine=engine, compiled=arguments.compile)
    job = session.job
    (pairs,) = job.pairs(IMAGES)
    sides = {
        "step": step_of(session, method),
        "own": lambda: matching.draw(job, pairs),  # noise and time, which is all that SFT draws
        "full": lambda: job.normal(pairs, "noise", *BIG["latents"]),
    }
    seconds = common.alternate(sides, arguments.repeats, device, cpu_time=arguments.cpu_time)
    session.close()
    rate = arguments.samples_per_second
    return [
        Figure(f"{arguments.backbone}, SFT: a step of {IMAGES} images", 1e3 * seconds["step"], "ms"),
        Figure(f"{arguments.backbone}, SFT: noise and time of a row", 1e3 * seconds["own"] / IMAGES, "ms"),
        Figure(f"{arguments.backbone}, SFT: share of a step", 100 * seconds["own"] / seconds["step"], "%"),
        Figure("SD3.5-M latents: noise of a row", 1e3 * seconds["full"] / IMAGES, "ms"),
        Figure(f"SD3.5-M latents: share at {rate:g} samples/s", 100 * rate * seconds["full"] / IMAGES, "%"),
    ]


def main() -> None:
    """Measure, print a table, write JSON if asked to."""
    parser = common.parser(__doc__)
    parser.add_argument("--samples-per-second", type=float, default=SFT_RATE, help="SFT of SD3.5-Medium on a GPU")
    arguments = parser.parse_args()
    device = common.start(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(common.backbone(arguments, Path(folder), device), arguments, device)
    common.tell("noise", figures, [f"SD3.5-M latents are {BIG['latents']}"], arguments, device)


if __name__ == "__main__":
    main()
