"""Read probes on held-out pairs and on pairs of training, and keep what they say beside an evaluation's samples.

``probes.jsonl`` has a row for each probe, part, guidance scale and level. ``probes.json`` says on which
pairs and at which levels, and is written last. A pass that was cut off goes on, and any number of processes leaves the
same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench import records
from bench.machine.engine import Engine
from bench.probes.probe import CHUNK, HELD_OUT, TRAINING, Probe, chunks, reads, rows
from bench.probes.routes import Field, NoisyPairs, Route, trajectories
from bench.records.schema import ProbeLine, ProbingRecord

Row = dict[str, Any]


class PairSource(Protocol):
    """Pairs in a fixed order.

    Attributes:
        identity: a hash of pictures and captions.
    """

    identity: str

    def __len__(self) -> int: ...

    def pairs(self, positions: Sequence[int]) -> NoisyPairs:
        """Latents, conditions and noise of some of them, where the model computes."""
        ...


@dataclass(frozen=True)
class Probing:
    """What is read: which probes, at which levels and guidance scales."""

    probes: tuple[Probe, ...]
    route: Route
    scales: tuple[float, ...]

    def describe(self, held_out: PairSource, training: PairSource | None = None) -> Row:
        """All that two readings must share to be compared. It holds the sampler's levels themselves."""
        known = {"training": {"count": len(training), "identity": training.identity}} if training else {}
        head: Row = {
            "v": records.VERSION,
            "pairs": {"count": len(held_out), "identity": held_out.identity, "together": CHUNK},
            **known,
            "sigmas": [float(sigma) for sigma in self.route.sigmas],
            "shift": self.route.shift,
            "starts": list(self.route.starts),
            "middle": list(self.route.middle),
            "span": self.route.span,
            "scales": list(self.scales),
            "probes": [probe.describe() for probe in self.probes],
        }
        with records.recording("what the probes say of themselves"):
            return records.document(ProbingRecord.model_validate(head))


def probe_pairs(
    field: Field,
    held_out: PairSource,
    probing: Probing,
    folder: Path,
    *,
    engine: Engine,
    training: PairSource | None = None,
    batch: int | None = None,
    tick: Callable[[int], None] = lambda pairs: None,
) -> None:
    """Read the probes into ``folder``, unless the same are there. Every process must call it.

    Args:
        held_out: pairs that no method trains on.
        training: as many that methods train on. Probes of ``fit`` read them too, without guidance.
        batch: pairs in a forward; it changes nothing but memory.
        tick: called with the number of pairs that have been read now and had not been before.
    """
    assert training is None or len(training) == len(held_out)
    head = probing.describe(held_out, training)
    if engine.broadcast(_holds(folder / "probes.json", head)):
        return
    partial = folder / ".probes.partial"
    if engine.is_main:
        (folder / "probes.json").unlink(missing_ok=True)  # it must never stand beside rows of other pairs
        _begin(partial, head)
    engine.barrier()
    parts = chunks(len(held_out))
    done = engine.broadcast({path.stem for path in partial.glob("[!.]*.jsonl")} if engine.is_main else set())
    for first in range(0, len(parts), engine.world_size):
        turn = range(first, min(first + engine.world_size, len(parts)))
        missing = [number for number in turn if _name(number) not in done]
        mine = first + engine.rank
        if missing:  # weights that are spread over processes compute with all of them, and alike, or not at all
            at = mine if mine in missing else missing[0]
            chosen = [probe for probe in probing.probes if any(reads(probe, number) for number in missing)]
            readings = _read(field, held_out.pairs(parts[at]), probing, chosen, batch)
            if training:
                readings += _read_fit(field, training.pairs(parts[at]), probing, chosen, batch)
            if at == mine:
                own = {probe.name for probe in chosen if reads(probe, at)}
                records.write_lines(
                    partial / f"{_name(at)}.jsonl", map(_line, (row for row in readings if row["probe"] in own))
                )
        tick(sum(len(parts[number]) for number in turn))
    engine.barrier()
    if engine.is_main:
        files = (partial / f"{_name(number)}.jsonl" for number in range(len(parts)))
        found = _together(row for file in files for row in records.read_lines(file))
        records.write_lines(folder / "probes.jsonl", found)
        records.write_json(folder / "probes.json", head)
        shutil.rmtree(partial)
    engine.barrier()


LEVEL = ("probe", "part", "guidance", "start", "sigma", "steps")


def _together(rows: Iterable[Row]) -> list[Row]:
    """Rows of one level as one row; those of a probe that raised stay as they are."""
    found: list[Row] = []
    at: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        first = at.setdefault(tuple(map(row.get, LEVEL)), row) if "values" in row else row
        if first is row:
            found.append(row)
        else:
            both = {key: first[key] + row[key] for key in ("pairs", "values")}
            first.update(row | both)  # with the error of either
    return found


def _line(row: Row) -> Row:
    return records.document(ProbeLine.model_validate(row))


def _name(number: int) -> str:
    return f"{number:05d}"


def _holds(path: Path, head: Row) -> bool:
    return path.exists() and records.read_json(path) == head


def _begin(partial: Path, head: Row) -> None:
    """Keep what a pass left that was cut off, unless it read something else."""
    about = partial / "about.json"
    if not _holds(about, head):
        shutil.rmtree(partial, ignore_errors=True)
        records.write_json(about, head)


def _read(field: Field, pairs: NoisyPairs, probing: Probing, probes: Collection[Probe], batch: int | None) -> list[Row]:
    of_scales, _ = trajectories(field, pairs, probing.route, probing.scales, batch=batch)
    return [row for paths in of_scales for probe in probes for row in rows(probe, paths, HELD_OUT)]


def _read_fit(
    field: Field, pairs: NoisyPairs, probing: Probing, probes: Collection[Probe], batch: int | None
) -> list[Row]:
    """Without guidance, which is in no loss."""
    (paths,), _ = trajectories(field, pairs, probing.route, (1.0,), batch=batch)
    return [row for probe in probes if probe.fit for row in rows(probe, paths, TRAINING)]
