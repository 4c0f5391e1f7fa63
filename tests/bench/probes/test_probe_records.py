"""Records of probes: what they hold, that they go on where they were cut off, and that processes change no byte."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gaussian import GaussianField, GaussianWorld, text
from torch import Tensor

from bench import records, registry
from bench.machine.engine import Engine
from bench.probes.records import LEVEL, Probing, _together, probe_pairs
from bench.probes.routes import NoisyPairs, route
from bench.sampling import levels

WORLD = GaussianWorld(0.2, 0.7)
NAMES = ("heldout_loss", "one_step_gap", "variance_error", "velocity_norm", "recovery")
FIELD = GaussianField(WORLD, empty_mean=0.1)
PROBING = Probing(
    tuple(registry.load("probes", name)() for name in NAMES),
    route(torch.from_numpy(levels.sigmas(levels.SHIFTED, 6, 3.0)), 3.0, starts=3),
    (1.0, 4.5),
)


class Pairs:
    """A Gaussian's pictures; counts how often each is asked for."""

    def __init__(self, count: int, identity: str = "one") -> None:
        self.identity = identity
        self._clean = torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(1)) * 0.7 + 0.2
        self.asked: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._clean)

    def pairs(self, positions: Sequence[int]) -> NoisyPairs:
        self.asked.update(positions)
        return NoisyPairs(self._clean[list(positions)], text(len(positions)), tuple(positions), 3)


def read(folder: Path, pairs: Pairs, probing: Probing = PROBING, **options: Any) -> bytes:
    probe_pairs(FIELD, pairs, probing, folder, **({"engine": Engine()} | options))
    return (folder / "probes.jsonl").read_bytes()


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """A row for each pair and level."""
    return [
        {**row, "pair": pair, "value": value}
        for row in records.read_lines(folder / "probes.jsonl")
        for pair, value in zip(row.pop("pairs"), row.pop("values"), strict=True)
    ]


def test_every_probe_has_a_row_for_each_pair_level_and_scale(tmp_path: Path) -> None:
    read(tmp_path, Pairs(40))
    rows = rows_of(tmp_path)
    assert {row["probe"] for row in rows} == set(NAMES) and {row["guidance"] for row in rows} == {1.0, 4.5}
    gaps = Counter((row["guidance"], row["sigma"]) for row in rows if row["probe"] == "one_step_gap")
    assert len(gaps) == 2 * len(PROBING.route.starts) and set(gaps.values()) == {40}
    # 40 pairs are chunks of 16, 16 and 8, of which a long probe reads the first.
    assert {row["pair"] for row in rows if row["probe"] == "recovery"} == set(range(16))
    assert all(row["v"] == 1 and isinstance(row["value"], float) for row in rows)


def test_a_row_of_the_file_has_all_pairs_of_a_level_whatever_chunks_they_were_read_in(tmp_path: Path) -> None:
    read(tmp_path, Pairs(40))
    rows = list(records.read_lines(tmp_path / "probes.jsonl"))
    assert {len(row["pairs"]) for row in rows if row["probe"] == "one_step_gap"} == {40}
    assert len(rows) == len({tuple(map(row.get, LEVEL)) for row in rows})


def test_an_error_of_one_chunk_stays_with_the_level(tmp_path: Path) -> None:
    about = {"v": 1, "probe": "a", "part": "held_out", "guidance": 1.0, "start": 1.0, "sigma": 0.5, "steps": 1}
    good, bad = about | {"pairs": [0], "values": [1.0]}, about | {"pairs": [1], "values": [None], "error": "none"}
    raised = {"v": 1, "probe": "a", "part": "held_out", "guidance": 1.0, "pairs": [2], "error": "raised"}
    joined = about | {"pairs": [0, 1], "values": [1.0, None], "error": "none"}
    assert _together([dict(good), dict(bad), raised]) == [joined, raised]
    assert _together([dict(bad) | {"pairs": [0]}, dict(good) | {"pairs": [1]}]) == [joined | {"values": [None, 1.0]}]


def test_the_record_holds_the_levels_themselves(tmp_path: Path) -> None:
    read(tmp_path, Pairs(20))
    head = records.read_json(tmp_path / "probes.json")
    assert head["sigmas"] == [float(sigma) for sigma in levels.sigmas(levels.SHIFTED, 6, 3.0)]
    assert head["pairs"] == {"count": 20, "identity": "one", "together": 16} and head["scales"] == [1.0, 4.5]
    assert [probe["name"] for probe in head["probes"]] == list(NAMES)


def test_what_is_there_is_not_read_again_and_other_pairs_are(tmp_path: Path) -> None:
    first = read(tmp_path, Pairs(20))
    again = Pairs(20)
    assert read(tmp_path, again) == first and not again.asked
    read(tmp_path, other := Pairs(20, "two"))
    assert len(other.asked) == 20
    fewer = replace(PROBING, scales=(1.0,))
    assert len(read(tmp_path, Pairs(20, "two"), fewer)) < len(first)


def test_the_loss_is_read_on_as_many_pairs_of_training_with_the_same_noise(tmp_path: Path) -> None:
    """Those of the same pictures read the same there as where they are held out, without guidance alone."""
    alone = read(tmp_path / "alone", Pairs(40))
    both = read(tmp_path / "both", Pairs(40), training=Pairs(40, "trained"))
    head = records.read_json(tmp_path / "both" / "probes.json")
    assert head["training"] == {"count": 40, "identity": "trained"} and head["pairs"]["identity"] == "one"
    rows = rows_of(tmp_path / "both")
    held_out, training = ([row for row in rows if row["part"] == part] for part in ("held_out", "training"))
    assert held_out == rows_of(tmp_path / "alone") and both != alone
    without = [row for row in held_out if row["probe"] == "heldout_loss" and row["guidance"] == 1]
    where = {(row["pair"], row["sigma"]): row["value"] for row in without}
    assert {(row["pair"], row["sigma"]) for row in training} == set(where)
    assert all(row["value"] == pytest.approx(where[row["pair"], row["sigma"]], rel=1e-5) for row in training)


class Killed(Exception):
    pass


def test_a_pass_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    whole = read(tmp_path / "whole", Pairs(56))
    seen = []

    def kill(pairs: int) -> None:
        seen.append(pairs)
        if len(seen) == 2:
            raise Killed

    with pytest.raises(Killed):
        read(tmp_path / "cut", Pairs(56), tick=kill)
    assert not (tmp_path / "cut" / "probes.json").exists() and not (tmp_path / "cut" / "probes.jsonl").exists()
    rest = Pairs(56)
    assert read(tmp_path / "cut", rest) == whole and set(rest.asked) == set(range(32, 56))
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["probes.json", "probes.jsonl"]


def test_what_was_cut_off_on_other_pairs_is_not_kept(tmp_path: Path) -> None:
    def kill(pairs: int) -> None:
        raise Killed

    read(tmp_path / "cut", Pairs(56, "before"))
    with pytest.raises(Killed):
        read(tmp_path / "cut", Pairs(56), tick=kill)
    assert not (tmp_path / "cut" / "probes.json").exists()  # which would name other pairs than the rows to come
    rest = Pairs(56, "two")
    read(tmp_path / "cut", rest)
    assert set(rest.asked) == set(range(56))


class Two(Engine):
    """One of two processes, as a thread."""

    def __init__(self, rank: int, gate: threading.Barrier, board: dict[str, Any]) -> None:
        super().__init__()
        self.rank, self.world_size, self._gate, self._board = rank, 2, gate, board

    def barrier(self) -> None:
        self._gate.wait()

    def broadcast(self, value: Any) -> Any:
        if self.rank == 0:
            self._board["value"] = value
        self._gate.wait()
        found = self._board["value"]
        self._gate.wait()
        return found


class Together(GaussianField):
    """A field whose weights are spread over two processes: each forward waits for the other's."""

    gate: threading.Barrier

    def velocity(self, latents: Tensor, sigma: Any, text: Any) -> Tensor:
        self.gate.wait()
        return super().velocity(latents, sigma, text)

    def branches(self, latents: Tensor, sigma: Any, text: Any) -> tuple[Tensor, Tensor]:
        self.gate.wait()
        return super().branches(latents, sigma, text)


@pytest.mark.parametrize("count", [20, 56, 90])
def test_two_processes_leave_the_bytes_of_one_and_compute_alike(tmp_path: Path, count: int) -> None:
    """An odd number of chunks too, and long probes that read one chunk of a turn and not the other."""
    one = read(tmp_path / "one", Pairs(count), training=Pairs(count))
    gate, forwards, board = threading.Barrier(2, timeout=60), threading.Barrier(2, timeout=60), {}
    Together.gate = forwards
    field, problems = Together(WORLD, empty_mean=0.1), []

    def run(rank: int) -> None:
        try:
            engine = Two(rank, gate, board)
            probe_pairs(field, Pairs(count), PROBING, tmp_path / "two", engine=engine, training=Pairs(count))
        except BaseException as error:
            problems.append(error)
            gate.abort()
            forwards.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [] and (tmp_path / "two" / "probes.jsonl").read_bytes() == one
