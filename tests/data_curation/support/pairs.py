"""Small real pictures and corpora in every layout."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
COLORS = {"red": RED, "green": GREEN, "blue": BLUE}


def encoded(
    color: tuple[int, ...] = RED, size: tuple[int, int] = (20, 20), form: str = "PNG", mode: str = "RGB"
) -> bytes:
    """One plain picture."""
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, form)
    return buffer.getvalue()


def noise(seed: int = 0, size: tuple[int, int] = (64, 64), form: str = "JPEG") -> bytes:
    """One noisy picture, which no encoder makes small."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of a few hundred bytes whose header asks for 60,000 x 60,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def lines(path: Path, *rows: object) -> Path:
    """Write JSON lines; a text is written as it stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def hy_soar(folder: Path, captions: dict[str, Any] | None = None, **more: Any) -> Path:
    """A corpus in the released layout: colour → caption. Returns the path of its lines."""
    rows = []
    for color, caption in (captions or {name: f"a {name} picture" for name in COLORS}).items():
        data = encoded(COLORS[color], form="JPEG")
        md5 = hashlib.md5(data).hexdigest()
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "images" / f"{md5}.jpg").write_bytes(data)
        rows.append({"md5": md5, "caption_en": caption, "bw": 512, "bh": 512} | more)
    return lines(folder / "train.jsonl", *rows)


def tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar of these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def table(images: list[bytes | None], captions: list[Any], *, struct: bool = False, **more: list[Any]) -> pa.Table:
    """An Arrow table of pictures and captions."""
    cells = [{"bytes": data, "path": None} for data in images] if struct else images
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()}) if struct else pa.binary()
    return pa.table({"image": pa.array(cells, kind), "text": pa.array(captions, pa.string()), **more})


def parquet(path: Path, content: pa.Table, rows: int = 2) -> Path:
    """A Parquet file with row groups of ``rows``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, row_group_size=rows)
    return path


def saved_dataset(folder: Path, *tables: pa.Table) -> Path:
    """A folder as datasets.save_to_disk leaves it."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{len(tables):05d}.arrow" for number in range(len(tables))]
    for name, content in zip(names, tables, strict=True):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, content.schema) as writer:
            writer.write_table(content)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def color(image: np.ndarray) -> str:
    """Name of the colour of a plain picture, JPEG's errors allowed."""
    return ("red", "green", "blue")[int(image.reshape(-1, 3).mean(0).argmax())]


def problems(corpus: Any) -> dict[str, str]:
    return {problem.item: problem.reason for problem in corpus.problems()}
