"""What it costs to compare what is read back with what was written. ``python perf/read_back.py [--json]``.

CPU seconds of one thread for each GB, with the file in the page cache. A disk that gives less than this rate hides it.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import common
import torch
from common import Figure
from safetensors.torch import save_file


def seconds(run: Callable[[], object], repeats: int) -> float:
    """CPU seconds of a call, the median of several after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def checkpoint(folder: Path, size: int, repeats: int) -> Figure:
    """The checksums of a checkpoint, as a resume reads them."""
    from bench.records.saved import is_damaged

    path = folder / "checkpoint.pt"
    torch.save({str(i): torch.randn(size // 32) for i in range(8)}, path)
    gigabytes = path.stat().st_size / 1e9
    return Figure("checkpoint.pt, on resume", seconds(lambda: is_damaged(path), repeats) / gigabytes, "s/GB")


def weights(folder: Path, size: int, repeats: int) -> Figure:
    """The SHA-256 of a job's weights, as an export, an evaluation and the next stage read them."""
    from bench.backbone.weights import check_seal, seal

    target = folder / "weights"
    target.mkdir()
    save_file({"weight": torch.randn(size // 4)}, target / "model.safetensors")
    seal(target)
    gigabytes = (target / "model.safetensors").stat().st_size / 1e9
    return Figure("weights/, stages/<n>/", seconds(lambda: check_seal(target), repeats) / gigabytes, "s/GB")


def cache(folder: Path, size: int, repeats: int) -> list[Figure]:
    """A shard of the encoded cache: opening it, which checks its keys, and reading its rows, which checks them."""
    from bench.encoded.store import Rows, Store, write_shard

    rows = size // 262_144
    keys = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(rows)]
    store = Store(folder / "latents", {})
    write_shard(store.folder, keys, {"latents": torch.randn(rows, 16, 64, 64)}, store.metadata)
    opened = seconds(store.open, repeats)
    held = Rows(store.places(keys))
    read = seconds(lambda: [held.read("latents", torch.tensor([row])) for row in range(rows)], repeats)
    return [
        Figure("encoded cache, opening a shard", 1e6 * opened / rows, "µs/row"),
        Figure("encoded cache, reading and checking", read / (rows * 262_144 / 1e9), "s/GB"),
    ]


def main() -> None:
    """Measure, print a table, write JSON if asked to."""
    parser = common.parser(__doc__, models=False)
    parser.add_argument("--megabytes", type=int, default=256, help="size of each file")
    arguments: argparse.Namespace = parser.parse_args()
    device, size = common.start(arguments), arguments.megabytes * 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        figures = [
            checkpoint(Path(folder), size, arguments.repeats),
            weights(Path(folder), size, arguments.repeats),
            *cache(Path(folder), size, arguments.repeats),
        ]
    common.tell("read_back", figures, ["CPU seconds of one thread"], arguments, device)


if __name__ == "__main__":
    main()
