"""How long a step waits for its data. ``python perf/loading.py [--json]``.

Rows lie in the sharded caches that a run writes, and are read ahead by the job's own prefetching thread. Two cases:

- SFT of the embedded tiny-sd3 through ``bench.job.Job``, with the seconds that its prefetching kept it waiting;
- rows of SD3.5-Medium's size (512 px, 333 text tokens: 3.0 MB a pair), read for a step of a given length. On a machine
  without a suitable GPU that step is a pause, as long as an SFT step takes at ``--samples-per-second``; the thread
  that reads has a core to itself then, as on a GPU machine.

Caches are dropped from the page cache before the first reading, so every pair's first reading comes from the disk.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import torch
from common import Figure

SFT_RATE = 48.0
"""SFT samples a second that one H200 is to reach: 45 % of 790 TFLOP/s at 7.3 TFLOP a sample (paper-experiments.md)."""

BIG = {"latents": (16, 64, 64), "prompt_embeds": (333, 4096), "pooled_prompt_embeds": (2048,)}
"""Shapes of a pair's rows for SD3.5-Medium at 512 px with 256 T5 tokens."""


def write(folder: Path, shapes: dict[str, tuple[int, ...]], count: int, dtype: torch.dtype) -> Any:
    """``count`` pairs of random rows in caches under ``folder``: (latents, text) as training reads them."""
    from bench.encoded.store import Rows, Store
    from bench.encoded.subset import StoredLatents, StoredText

    keys = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(count)]
    rows_of_kind = []
    for kind, names, precision in (
        ("latents", ["latents"], torch.float32),
        ("text", ["prompt_embeds", "pooled_prompt_embeds"], dtype),
    ):
        store = Store(folder / kind, {"backbone": "0" * 64, "kind": kind})
        rows = {name: torch.randn(64, *shapes[name]).to(precision) for name in names}
        size = sum(part[0].nbytes for part in rows.values())
        store.fill(
            keys,
            lambda now, then, rows=rows: {name: part[: len(now)] for name, part in rows.items()},
            row_bytes=size,
            batch=64,
        )
        for path in store.folder.glob("*.safetensors"):
            _forget(path)
        store.open()
        rows_of_kind.append(Rows(store.places(keys)))
    return StoredLatents(rows_of_kind[0]), StoredText(rows_of_kind[1])


def _forget(path: Path) -> None:
    """Drop a file's pages from the page cache, where the system can."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def embedded(folder: Path, steps: int, batch: int) -> list[Figure]:
    """SFT of tiny-sd3 from caches on disk."""
    from bench.backbone import loader
    from bench.experiment.config import method_config
    from bench.experiment.session import Session
    from bench.suite import Prompt
    from bench.training.data import TrainingData
    from methods.sft import SFT

    backbone = loader.find("tiny-sd3")
    null = backbone.encode_prompts([""])
    count = steps * batch
    shapes = {
        "latents": backbone.latent_shape,
        "prompt_embeds": tuple(null.prompt_embeds.shape[1:]),
        "pooled_prompt_embeds": tuple(null.pooled_prompt_embeds.shape[1:]),
    }
    latents, text = write(folder, shapes, count, torch.float32)
    data = TrainingData(
        latents=latents,
        shapes=torch.tensor(shapes["latents"]).expand(count, -1),
        text=text,
        prompts=tuple(Prompt(str(i), str(i)) for i in range(count)),
        text_of=torch.arange(count),
    )
    method = SFT(method_config(SFT, "embedded", {"batch_size": batch}))
    session = Session.of(backbone=backbone, null=null, data=data, seed=0)
    job, feed = session.job, session.feed
    method.setup(job)
    method.step(job)  # starts the thread; what it waited for here, a run waits for once
    before, started = feed.waited, time.perf_counter()
    for _ in range(steps - 1):
        method.step(job)
        session.ledger.finish_step(0.0, 0)
    share = (feed.waited - before) / (time.perf_counter() - started)
    return [Figure("tiny-sd3, SFT: share of a step spent waiting", 100 * share, "%", "<= 3")]


def full_size(folder: Path, steps: int, batch: int, rate: float) -> list[Figure]:
    """Rows of SD3.5-Medium's size, read beside steps that last ``batch / rate`` seconds."""
    from bench.training.prefetch import Prefetch

    latents, text = write(folder, BIG, steps * batch, torch.bfloat16)
    order = torch.randperm(steps * batch, generator=torch.Generator().manual_seed(0)).view(steps, batch)
    keys = [tuple(rows.tolist()) for rows in order]
    seconds: list[float] = []

    def read(key: tuple[int, ...]) -> Any:
        start = time.perf_counter()
        index = torch.tensor(key)
        rows = latents[index], text[index]
        seconds.append(time.perf_counter() - start)
        return rows

    prefetch: Prefetch[tuple[int, ...], Any] = Prefetch(read)
    before = started = 0.0
    for number, (key, after) in enumerate(zip(keys, [*keys[1:], keys[0]], strict=True)):
        if number == 1:  # the first batch of a run has nothing to hide behind
            before, started = prefetch.waited, time.perf_counter()
        prefetch.get(key, after)
        time.sleep(batch / rate)
    share = (prefetch.waited - before) / (time.perf_counter() - started)
    prefetch.close()
    once, again = sorted(seconds[:steps])[steps // 2], 0.0
    for _ in range(3):
        read(keys[0])
    again = min(seconds[-3:])
    return [
        Figure("SD3.5-M rows: a batch from the disk, median", 1000 * once, "ms"),
        Figure("SD3.5-M rows: a batch from the page cache", 1000 * again, "ms"),
        Figure("SD3.5-M rows: pairs a second from the disk", batch / once, "pairs/s", f">= {rate:g}"),
        Figure("SD3.5-M rows: share of a (simulated) step spent waiting", 100 * share, "%", "<= 3"),
    ]


def main() -> None:
    """Measure, print a table, write JSON if asked to."""
    parser = common.parser(__doc__, models=False)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32, help="pairs per step")
    parser.add_argument("--samples-per-second", type=float, default=SFT_RATE, help="speed of the simulated training")
    arguments: argparse.Namespace = parser.parse_args()
    device = common.start(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = embedded(Path(folder) / "tiny", arguments.steps, arguments.batch)
        figures += full_size(Path(folder) / "full", arguments.steps, arguments.batch, arguments.samples_per_second)
    note = f"simulated step: {arguments.batch / arguments.samples_per_second:.2f} s for {arguments.batch} pairs"
    common.tell("loading", figures, [note], arguments, device)


if __name__ == "__main__":
    main()
