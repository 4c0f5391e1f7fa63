"""What it costs to verify what is read. ``python perf/verifying.py [--cpu-time] [--json] [--machine WORDS]``.

Files lie in the page cache: a disk that is slower than these rates hides the cost.

- an image: the SHA-256 of its file, beside reading and decoding it, which is done anyway;
- a score file of the paper's suite: its lines with and without checksums;
- a checkpoint: the checksums that a resume reads;
- weights on disk: the SHA-256 that an export, an evaluation and the next stage read;
- the encoded cache: the keys of a shard when it is opened, and the checksum of each row when it is read;
- weights in memory: the hash over every tensor that an evaluation names, of a float32 model of 100 MB.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from common import Figure
from safetensors.torch import save_file

SIDE = 512
"""Of the paper's pictures, in pixels."""
LINES = 4230
"""Of the paper's suite: images that it draws of each checkpoint."""
COLUMNS = 7
"""Scores in a line."""
LATENTS = (16, 64, 64)
"""Shape of a row of the encoded cache: SD3.5's latents of a picture of 512 px."""
CPU = torch.device("cpu")


def image(path: Path, repeats: int, *, cpu_time: bool = False) -> list[Figure]:
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
        CPU,
        cpu_time=cpu_time,
    )
    size = f"{SIDE} px, {path.stat().st_size // 1000} kB"
    return [Figure(f"image of {size}: {name}", 1000 * s / times, "ms") for name, s in seconds.items()]


def score_file(path: Path, repeats: int, *, cpu_time: bool = False) -> list[Figure]:
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
        CPU,
        cpu_time=cpu_time,
    )
    return [Figure(f"score file of {LINES} lines: {name}", s, "s") for name, s in seconds.items()]


def files(folder: Path, size: int, repeats: int, *, cpu_time: bool = False) -> list[Figure]:
    """Seconds a gigabyte of a checkpoint and of weights, both of about ``size`` bytes."""
    from bench.backbone.weights import check_seal, seal
    from bench.records.saved import is_damaged

    checkpoint, weights = folder / "checkpoint.pt", folder / "weights"
    torch.save({str(i): torch.randn(size // 32) for i in range(8)}, checkpoint)
    weights.mkdir()
    save_file({"weight": torch.randn(size // 4)}, weights / "model.safetensors")
    seal(weights)
    seconds = common.alternate(
        {"checkpoint": lambda: is_damaged(checkpoint), "weights": lambda: check_seal(weights)},
        repeats,
        CPU,
        cpu_time=cpu_time,
    )
    sizes = {"checkpoint": checkpoint.stat().st_size, "weights": (weights / "model.safetensors").stat().st_size}
    places = {"checkpoint": "checkpoint.pt", "weights": "weights/, stages/<n>/"}
    return [Figure(places[name], s / (sizes[name] / 1e9), "s/GB") for name, s in seconds.items()]


def cache(folder: Path, size: int, repeats: int, *, cpu_time: bool = False) -> list[Figure]:
    """A shard of about ``size`` bytes: microseconds a row to open it, seconds a gigabyte to read its rows."""
    from bench.encoded.store import Rows, Store, write_shard

    row_bytes = 4 * int(np.prod(LATENTS))
    count = size // row_bytes
    keys = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(count)]
    store = Store(folder / "latents", {})
    write_shard(store.folder, keys, {"latents": torch.randn(count, *LATENTS)}, store.metadata)
    opening = common.alternate({"": store.open}, repeats, CPU, cpu_time=cpu_time)[""]
    rows = Rows(store.places(keys))  # after the turns of opening: a shard that is opened anew is mapped anew

    def read() -> None:
        for row in range(count):
            rows.read("latents", torch.tensor([row]))

    reading = common.alternate({"": read}, repeats, CPU, cpu_time=cpu_time)[""]
    return [
        Figure("encoded cache, opening a shard", 1e6 * opening / count, "µs/row"),
        Figure("encoded cache, reading and checking", reading / (count * row_bytes / 1e9), "s/GB"),
    ]


def model(repeats: int, device: torch.device, *, cpu_time: bool = False) -> Figure:
    """Seconds a gigabyte of tensors in the memory of ``device``."""
    from bench.machine.engine import Engine, digest_of

    linear = torch.nn.Linear(5000, 5000, bias=False, device=device)
    seconds = common.alternate({"": lambda: digest_of(linear, Engine())}, repeats, device, cpu_time=cpu_time)
    return Figure("weights in memory, of an evaluation", seconds[""] / (4 * 5000**2 / 1e9), "s/GB")


def main() -> None:
    """Measure, print a table, write JSON if asked to."""
    parser = common.parser(__doc__, models=False)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds: for a machine with other work")
    parser.add_argument("--megabytes", type=int, default=256, help="size of the checkpoint, the weights and the shard")
    arguments = parser.parse_args()
    device, size = common.start(arguments), arguments.megabytes * 1_000_000
    repeats, cpu_time = arguments.repeats, arguments.cpu_time
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = [
            *image(folder / "x.png", repeats, cpu_time=cpu_time),
            *score_file(folder / "samples.jsonl", repeats, cpu_time=cpu_time),
            *files(folder, size, repeats, cpu_time=cpu_time),
            *cache(folder, size, repeats, cpu_time=cpu_time),
        ]
    figures.append(model(repeats, device, cpu_time=cpu_time))
    common.tell("verifying", figures, [], arguments, device)


if __name__ == "__main__":
    main()
