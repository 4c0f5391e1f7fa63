"""What verifying costs. ``python perf/verifying.py [--cpu-time] [--json] [--machine WORDS]``.

- an image: the SHA-256 of its file, beside reading and decoding it, which is done anyway;
- a score file of the paper's suite: its lines with and without checksums;
- weights: the hash over every tensor that an evaluation names, of a float32 model of 100 MB.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from common import Figure

SIDE = 512
"""Of the paper's pictures, in pixels."""
LINES = 4230
"""Of the paper's suite: images that it draws of each checkpoint."""
COLUMNS = 7
"""Scores in a line."""


def image(path: Path, repeats: int, device: torch.device, *, cpu_time: bool = False) -> list[Figure]:
    """Milliseconds of an image of noise that is blurred, which compresses about as a photograph does."""
    from PIL import Image, ImageFilter

    from bench.records import pictures
    from bench.rng import numpy_generator

    pixels = numpy_generator(0, "perf of verifying").integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1)).save(path)
    recorded, times = pictures.digest(path.read_bytes()), 20
    seconds = common.alternate(
        {
            "decoded": lambda: [pictures.read(path) for _ in range(times)],
            "hash alone": lambda: [pictures.digest(path.read_bytes()) == recorded for _ in range(times)],
        },
        repeats,
        device,
        cpu_time=cpu_time,
    )
    size = f"{SIDE} px, {path.stat().st_size // 1000} kB"
    return [Figure(f"image of {size}: {name}", 1000 * s / times, "ms") for name, s in seconds.items()]


def score_file(path: Path, repeats: int, device: torch.device, *, cpu_time: bool = False) -> list[Figure]:
    """Seconds for a whole file."""
    from bench import records

    scores = {f"metric_{i}": {"version": 1, "score": 0.123456} for i in range(COLUMNS)}
    row: dict[str, Any] = {"v": 1, "prompt_set": "geneval", "prompt": "a photo of two clocks", "group": "counting"}
    rows = [row | {"prompt_id": f"{i:05d}", "sha256": "0" * 64, "scores": scores} for i in range(LINES)]
    plain = path.with_name("plain.jsonl")
    plain.write_text("".join(records.dumps(row) + "\n" for row in rows))
    records.write_lines(path, rows)
    seconds = common.alternate(
        {"with checksums": lambda: list(records.read_lines(path)), "without": lambda: list(records.read_lines(plain))},
        repeats,
        device,
        cpu_time=cpu_time,
    )
    return [Figure(f"score file of {LINES} lines: {name}", s, "s") for name, s in seconds.items()]


def weights(repeats: int, device: torch.device, *, cpu_time: bool = False) -> Figure:
    """Seconds a gigabyte of tensors in the main memory."""
    from bench.machine.engine import Engine, digest_of

    model = torch.nn.Linear(5000, 5000, bias=False, device=device)
    seconds = common.alternate({"": lambda: digest_of(model, Engine())}, repeats, device, cpu_time=cpu_time)
    return Figure("weights of an evaluation", seconds[""] / (4 * 5000**2 / 1e9), "s/GB")


def main() -> None:
    """Measure and tell."""
    parser = common.parser(__doc__, models=False)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds: for a machine with other work")
    arguments = parser.parse_args()
    device = common.start(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = image(Path(folder) / "x.png", arguments.repeats, device, cpu_time=arguments.cpu_time)
        figures += score_file(Path(folder) / "samples.jsonl", arguments.repeats, device, cpu_time=arguments.cpu_time)
    figures.append(weights(arguments.repeats, device, cpu_time=arguments.cpu_time))
    common.tell("verifying", figures, [], arguments, device)


if __name__ == "__main__":
    main()
