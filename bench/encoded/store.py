"""Rows of tensors on disk, such as encoded pictures and captions, found by the SHA-256 of what they were made from.

A folder holds shards, each a safetensors file that is written once and never changed. A shard's rows are named by its
tensor ``keys`` (rows, 32), SHA-256 digests; every other tensor has one row for each, and ``<name>.crc32`` (rows,) its
checksums. ``keys.crc32`` (rows,) binds each key to its row: it is the checksum of the key and the row's checksums, so
that an exchange of two keys is found when the shard is opened, before any row is read. Shards of 0.4.0 lack it. The
metadata says which backbone made it and how. Two subsets that overlap share what both need, and a run
that was killed goes on with what no shard holds yet.

Rows are read through memory maps of the shards: on the machine where this was measured (64 random rows of 262 kB in
512 MB, page cache warm) in 1.5 ms, against 9 ms through safetensors' own tensors and 11 ms through its slices, and
without its private writable mapping, which counts as used memory where the system does not overcommit.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bench import records
from bench.errors import BenchError
from bench.machine.crew import ALONE, Crew

SHARD_BYTES = 512 * 2**20
"""Most bytes of rows in one shard. A killed run loses as much, and a write needs twice as much memory."""

SHARD_ROWS = 4096
"""Most rows in one shard, so that small rows are saved every few seconds too."""

OPEN_MAPS = 256
"""Shards mapped at once. A map holds a file descriptor, of which Linux gives a process 1024 by default."""

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}

Encode = Callable[[tuple[int, ...], tuple[int, ...] | None], Mapping[str, Tensor]]
"""(positions to encode now, positions asked for next) → tensors with one row for each position."""


@dataclass(frozen=True)
class _Block:
    """Where a tensor's rows lie in a shard."""

    start: int
    row_bytes: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    sums: np.ndarray


class Shard:
    """One file of encoded rows, opened and checked; its rows are read when they are asked for.

    Raises:
        BenchError: the file is damaged, cut short, or was made by another backbone or with other settings.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self.path = path
        try:
            with safe_open(path, "np") as file:  # checks the header and the length of the file
                actual = dict(file.metadata() or {})
                keys = file.get_tensor("keys")
                there = set(file.keys())
                names = sorted(name for name in there if f"{name}.crc32" in there and name != "keys")
                sums = {name: file.get_tensor(f"{name}.crc32") for name in names}
                bound = file.get_tensor("keys.crc32") if "keys.crc32" in there else None
            with path.open("rb") as raw:
                length = int.from_bytes(raw.read(8), "little")
                header = json.loads(raw.read(length))
            self._blocks = {name: _block(header[name], 8 + length, sums[name]) for name in names}
            if keys.dtype != np.uint8 or keys.shape[1:] != (32,):
                raise ValueError("its keys are no SHA-256 digests")
            if bound is not None and not np.array_equal(bound, _bound(keys, sums)):
                raise ValueError("its keys are not those of its rows")
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise damaged(path, error) from error
        _check_metadata(path, actual, metadata)
        joined = keys.tobytes().hex()
        self.keys = [joined[i : i + 64] for i in range(0, len(joined), 64)]
        status = path.stat()
        self._version = (status.st_ino, status.st_mtime_ns, status.st_size)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one row."""
        return self._blocks[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """How rows are stored."""
        return self._blocks[name].dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in all tensors."""
        return sum(block.row_bytes for block in self._blocks.values())

    def read_into(self, out: np.ndarray, name: str, row: int) -> None:
        """Copy one row's bytes to ``out`` (uint8) and check them."""
        block = self._blocks[name]
        start = block.start + row * block.row_bytes
        out[:] = _map(self.path, *self._version)[start : start + block.row_bytes]
        if zlib.crc32(out.data) != block.sums[row]:
            raise damaged(self.path, f"row {row} of {name} does not match its checksum")


def _block(entry: Mapping[str, Any], data: int, sums: np.ndarray) -> _Block:
    rows, *shape = entry["shape"]
    first, last = entry["data_offsets"]
    if len(sums) != rows:
        raise ValueError(f"{len(sums)} checksums for {rows} rows")
    return _Block(data + first, (last - first) // max(rows, 1), tuple(shape), _DTYPES[str(entry["dtype"])], sums)


def _bound(keys: np.ndarray, sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """Checksums (rows,) of keys (rows, 32) together with the checksums of their rows in every tensor."""
    columns = [sums[name].astype("<i8").reshape(-1, 1).view(np.uint8) for name in sorted(sums)]
    return np.array([zlib.crc32(row) for row in np.concatenate([keys, *columns], axis=1)], np.int64)


def _check_metadata(path: Path, actual: Mapping[str, str], expected: Mapping[str, str]) -> None:
    again = "delete it; the next run encodes its rows again"
    for name, value in expected.items():
        got = actual.get(name)
        if got == value:
            continue
        if name == "backbone":
            raise BenchError(f"{path} was encoded by another backbone ({str(got)[:16]}, not {value[:16]}); {again}")
        raise BenchError(f"{path} does not belong there (its {name} is {got}, not {value}); {again}")


def damaged(path: Path, why: object) -> BenchError:
    """The one line for a shard that cannot be used."""
    text = " ".join(str(why).split())
    return BenchError(f"{path} is damaged ({text}); delete it; the next run encodes its rows again")


@lru_cache(maxsize=OPEN_MAPS)
def _map(path: Path, inode: int, written: int, length: int) -> np.ndarray:
    try:
        mapped = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read any more ({error}); run the same command again") from error
    if len(mapped) != length:
        raise damaged(path, f"it has {len(mapped)} bytes instead of {length}")
    return mapped.view(np.ndarray)  # the map lives as long as this view of it


class Store:
    """A folder of shards that were made in one way.

    Args:
        metadata: what made the rows; ``backbone`` is a fingerprint. Shards that say otherwise are refused.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, str]) -> None:
        self.folder, self.metadata = folder, {"layout": "1", **metadata}
        self.open()

    def open(self) -> None:
        """Look at the folder again: other processes may have added to it."""
        self.shards = [Shard(path, self.metadata) for path in sorted(self.folder.glob("*.safetensors"))]
        self._where: dict[str, tuple[int, int]] = {}
        for number, shard in enumerate(self.shards):
            for row, key in enumerate(shard.keys):
                self._where.setdefault(key, (number, row))

    def __len__(self) -> int:
        return len(self._where)

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Positions in ``keys`` that no shard holds, the first of each key only."""
        first: dict[str, int] = {}
        for position, key in enumerate(keys):
            if key not in self._where:
                first.setdefault(key, position)
        return list(first.values())

    def places(self, keys: Sequence[str]) -> list[tuple[Shard, int]]:
        """Where each key's row lies. Every key must be in the folder by now."""
        if lost := self.missing(keys):
            raise BenchError(f"{self.folder} lacks {len(lost)} rows that were just encoded; run the same command again")
        return [(self.shards[number], row) for number, row in map(self._where.__getitem__, keys)]

    def fill(self, keys: Sequence[str], encode: Encode, *, row_bytes: int, batch: int, crew: Crew = ALONE) -> int:
        """Encode this rank's share of what is missing and write it shard by shard. Returns how many rows that was.

        A key's rank follows from the key, so ranks need not see the folder at the same moment.

        Args:
            batch: rows to encode at once.
            crew: who shares the work. Its ``tick`` hears of the rows that this process has encoded.

        Raises:
            DiskFull: there is less space than all ranks' rows need (before anything is encoded), or a write failed.
        """
        if not (missing := self.missing(keys)):
            return 0  # and nothing is touched: a filled cache may be read-only
        self.folder.mkdir(parents=True, exist_ok=True)
        need, free = len(missing) * row_bytes, shutil.disk_usage(self.folder).free
        if need > free:
            raise records.DiskFull(
                f"{self.folder} will take {gigabytes(need)} more and the disk has {gigabytes(free)} free; "
                "free some space, or put the cache elsewhere, and run the same command"
            )
        mine = [position for position in missing if owner(keys[position], crew.world_size) == crew.rank]
        per_shard = max(1, min(SHARD_BYTES // row_bytes, SHARD_ROWS))
        if per_shard > batch:
            per_shard -= per_shard % batch
        shards = [
            [tuple(shard[i : i + batch]) for i in range(0, len(shard), batch)]
            for shard in (mine[i : i + per_shard] for i in range(0, len(mine), per_shard))
        ]
        coming: Iterator[tuple[int, ...] | None] = iter([*chain.from_iterable(shards), None])
        next(coming)
        for batches in shards:
            done: dict[str, Tensor] = {}
            filled, total = 0, sum(map(len, batches))
            for positions in batches:
                for name, rows in encode(positions, next(coming)).items():
                    whole = done.setdefault(name, torch.empty(total, *rows.shape[1:], dtype=rows.dtype))
                    whole[filled : filled + len(rows)] = rows
                filled += len(positions)
                crew.tick(len(positions))
            write_shard(self.folder, [keys[p] for p in chain.from_iterable(batches)], done, self.metadata)
        return len(mine)


def gigabytes(count: float) -> str:
    """A number of bytes for people: ``762.4 GB``, ``0.004 GB``."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e9:.3f} GB"


def owner(key: str, world_size: int) -> int:
    """The rank that encodes what ``key`` names."""
    return int(key[:8], 16) % world_size


def write_shard(folder: Path, keys: Sequence[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write rows as one shard, whole or not at all. Its name follows from its keys."""
    joined = bytes.fromhex("".join(keys))
    content = {"keys": torch.frombuffer(bytearray(joined), dtype=torch.uint8).view(-1, 32)}
    for name, rows in tensors.items():
        raw = rows.contiguous().view(torch.uint8).flatten(1).numpy()
        content[name] = rows.contiguous()
        content[f"{name}.crc32"] = torch.tensor([zlib.crc32(row) for row in raw], dtype=torch.int64)
    sums = {name: content[f"{name}.crc32"].numpy() for name in tensors}
    content["keys.crc32"] = torch.from_numpy(_bound(content["keys"].numpy(), sums))
    path = folder / f"{hashlib.sha256(joined).hexdigest()[:16]}.safetensors"
    records.write_bytes(path, save(content, metadata=dict(metadata)))
    return path


class Rows:
    """A list of rows, of one tensor shape or several, in any number of shards."""

    def __init__(self, places: Sequence[tuple[Shard, int]]) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def read(self, name: str, index: Tensor) -> Tensor:
        """Rows ``index`` (N,) of one shape as float32 (N, …)."""
        places = [self._places[i] for i in index.tolist()]
        if not places:
            raise IndexError("no rows were asked for")
        shape, dtype = places[0][0].shape(name), places[0][0].dtype(name)
        out = np.empty((len(places), math.prod(shape) * dtype.itemsize), np.uint8)
        for target, (shard, row) in zip(out, places, strict=True):
            if shard.shape(name) != shape:
                raise ValueError(f"rows of the shapes {shape} and {shard.shape(name)} do not fit into one batch")
            shard.read_into(target, name, row)
        return torch.from_numpy(out).view(dtype).view(len(places), *shape).float()
