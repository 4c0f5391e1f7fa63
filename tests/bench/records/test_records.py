"""Records are written whole or not at all, and a damaged one ends in one line."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from bench import records
from bench.errors import BenchError
from bench.records import Log, files


def full_disk(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "record.json"
    records.write_json(path, {"a": 1})
    records.write_json(path, {"a": 2})
    assert records.read_json(path) == {"a": 2}
    assert names(path.parent) == ["record.json"]


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "record.json"
    records.write_json(path, {"a": 1})
    before = path.read_bytes()
    monkeypatch.setattr(call, full_disk)
    with pytest.raises(BenchError, match=r"disk is full: could not write .*record\.json; free some space"):
        records.write_json(path, {"a": 2})
    assert path.read_bytes() == before
    assert names(tmp_path) == ["record.json"]


def test_other_write_errors_are_not_called_a_full_disk(tmp_path, monkeypatch):
    def denied(*arguments: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr("os.replace", denied)
    with pytest.raises(PermissionError):
        records.write_bytes(tmp_path / "x", b"")
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_disk_that_fills_inside_torch_save_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    import torch

    watched = files.WatchedFile
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(files, "WatchedFile", lambda file: watched(full))
        with pytest.raises(records.DiskFull, match=r"disk is full: could not write .*checkpoint\.pt; free some space"):
            records.write_with(tmp_path / "checkpoint.pt", lambda file: torch.save({"a": torch.zeros(100_000)}, file))
    assert names(tmp_path) == []


def test_a_stop_in_the_middle_leaves_nothing(tmp_path):
    def stopped(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records.write_with(tmp_path / "x", stopped)
    assert names(tmp_path) == []


def test_a_write_error_names_the_file_and_not_its_partial(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError) as caught:
        records.write_bytes(tmp_path / "x", b"")
    assert caught.value.filename == str(tmp_path / "x") and names(tmp_path) == ["x"]


def test_a_full_disk_stops_a_log_with_one_line(tmp_path, monkeypatch):
    log = Log(tmp_path / "train.jsonl")
    log.append({"step": 1})
    monkeypatch.setattr(Path, "open", full_disk)
    with pytest.raises(BenchError, match=r"disk is full: could not write .*train\.jsonl"):
        log.append({"step": 2})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_never_enters_a_record(tmp_path, value):
    with pytest.raises(ValueError, match="JSON compliant"):
        Log(tmp_path / "log").append({"step": 1, "loss": value})
    with pytest.raises(ValueError, match="JSON compliant"):
        records.write_json(tmp_path / "x.json", {"loss": value})
    assert not (tmp_path / "x.json").exists()


def test_the_digest_ignores_the_order_of_keys_only():
    assert records.digest({"a": 1, "b": [1, 2]}) == records.digest({"b": [1, 2], "a": 1})
    assert records.digest({"a": [1, 2]}) != records.digest({"a": [2, 1]})


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"no json"])
def test_a_damaged_document_ends_in_one_line(tmp_path, content):
    path = tmp_path / "job.json"
    path.write_bytes(content)
    with pytest.raises(BenchError, match=r"job\.json is damaged") as caught:
        records.read_json(path)
    assert "\n" not in str(caught.value)


def test_a_missing_document_ends_in_one_line(tmp_path):
    with pytest.raises(BenchError, match=r"job\.json is not there"):
        records.read_json(tmp_path / "job.json")


def test_lines_round_trip(tmp_path):
    rows = [{"step": 1, "text": "σ = ½\u2028next"}, {"step": 2, "text": ""}]
    records.write_lines(tmp_path / "rows.jsonl", rows)
    assert list(records.read_lines(tmp_path / "rows.jsonl")) == rows
    assert list(records.read_lines(tmp_path / "none.jsonl")) == []


@pytest.mark.parametrize("damage", [b'{"step": 2\n', b"\xff\xfe\x00\n", b'{"step": 2}{\n{"step": 3}\n'])
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"step": 1}\n' + damage)
    with pytest.raises(BenchError, match=r"rows\.jsonl:2 is damaged"):
        list(records.read_lines(path))


@pytest.mark.parametrize("half", [b"{", b'{"step": 2, "\xce', b'{"step": 2, "\xce\xbb": 0.'])
def test_reading_skips_a_last_line_that_a_kill_cut_short(tmp_path, half):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"step": 1}\n' + half)
    assert list(records.read_lines(path)) == [{"step": 1}]


def test_every_line_of_a_log_says_its_version(tmp_path):
    log = Log(tmp_path / "new" / "log.jsonl")
    log.append({"step": 1, "loss": 0.1})
    assert json.loads(log.path.read_text()) == {"v": records.VERSION, "step": 1, "loss": 0.1}


def make_log(folder: Path, steps: int) -> Log:
    log = Log(folder / "log.jsonl")
    for step in range(1, steps + 1):
        log.append({"step": step, "λ": step / 3})
    return log


def test_cutting_a_log_leaves_the_bytes_of_a_shorter_one(tmp_path):
    log = make_log(tmp_path / "a", 5)
    log.cut_after(3)
    assert log.path.read_bytes() == make_log(tmp_path / "b", 3).path.read_bytes()
    log.cut_after(9)
    assert log.path.read_bytes() == make_log(tmp_path / "c", 3).path.read_bytes()
    log.cut_after(0)
    assert log.path.read_bytes() == b""


def test_cutting_drops_a_last_line_cut_anywhere(tmp_path):
    whole = make_log(tmp_path, 3).path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(whole) - 1):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(whole[:end])
        Log(path).cut_after(3)
        assert path.read_bytes() == whole[:start], f"cut in byte {end - start} of the last line"


def test_cutting_mends_a_last_line_that_lacks_only_its_end(tmp_path):
    whole = make_log(tmp_path, 2).path.read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(whole[:-1])
    Log(tmp_path / "cut.jsonl").cut_after(2)
    assert (tmp_path / "cut.jsonl").read_bytes() == whole


def test_cutting_a_log_that_was_never_written_makes_none(tmp_path):
    Log(tmp_path / "log.jsonl").cut_after(3)
    assert not (tmp_path / "log.jsonl").exists()


ROWS = [{"prompt_id": "0", "scores": {"clip": {"score": 0.25, "version": 1}}}, {"prompt_id": "ü", "scores": {}}]


@pytest.mark.parametrize(
    ("was", "now"),
    [('"score": 0.25', '"score": 0.35'), ('"prompt_id": "0"', '"prompt_id": "1"'), ('"version": 1', '"version": 2')],
)
def test_a_line_that_was_changed_after_it_was_written_is_named(tmp_path, was, now):
    path = tmp_path / "samples.jsonl"
    records.write_lines(path, ROWS)
    path.write_text(path.read_text().replace(was, now))
    with pytest.raises(BenchError, match=r"samples\.jsonl:1 was changed after it was written.*`bench score`$") as error:
        list(records.read_lines(path))
    assert "\n" not in str(error.value)


def test_any_flipped_bit_of_a_line_is_noticed(tmp_path):
    """Whatever JSON it makes: what is read is what was written, without the last line where it lost its end."""
    path = tmp_path / "samples.jsonl"
    records.write_lines(path, ROWS)
    whole, noticed = path.read_bytes(), 0
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                read = [{key: row[key] for key in ("prompt_id", "scores")} for row in records.read_lines(path)]
            except BenchError:
                noticed += 1
            else:
                assert read in (ROWS, ROWS[:1])
    assert noticed > 7 * len(whole)


def test_lines_of_older_releases_are_read_as_they_stand(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert list(records.read_lines(path)) == ROWS


def test_a_line_says_its_checksum(tmp_path):
    """The first 16 digits of the SHA-256 of the canonical line without it, by another program."""
    import hashlib

    records.write_lines(tmp_path / "samples.jsonl", ROWS[:1])
    line = (tmp_path / "samples.jsonl").read_text()
    canonical = '{"prompt_id": "0", "scores": {"clip": {"score": 0.25, "version": 1}}}'
    assert json.loads(line)["check"] == hashlib.sha256(canonical.encode()).hexdigest()[:16]
