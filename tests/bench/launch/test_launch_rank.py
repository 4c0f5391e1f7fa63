"""What the ranks of a cluster job tell each other of a death, however late one of them begins."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.launch import ends, rank
from bench.launch.rank import Rank, RankFailed
from bench.records.status import read_status, write_status

DIED = "rank 1 died"


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rank 0 of two, whose worker was told to stop; returns what it then asked of the others."""
    asked: list[str] = []
    monkeypatch.setattr("submitit.JobEnvironment", lambda: SimpleNamespace(job_id="7", global_rank=0, num_tasks=2))
    monkeypatch.setattr(rank, "join_group", lambda: None)
    monkeypatch.setattr(rank, "run_worker", lambda command: ends.INTERRUPTED)
    monkeypatch.setattr(rank, "stop_others", lambda: asked.append("stop"))
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.setitem(os.environ, "TORCHELASTIC_ERROR_FILE", "")  # which a rank sets; put back afterwards
    return asked


def test_a_rank_that_begins_late_keeps_the_word_of_one_that_has_died(tmp_path: Path, stopped: list[str]) -> None:
    late = Rank(("worker",), tmp_path, ("job",))
    write_status(tmp_path / "job", "started")
    late.word.parent.mkdir()
    late.word.write_text(DIED)
    with pytest.raises(RankFailed, match=DIED):
        late()
    assert read_status(tmp_path / "job") == {"v": 1, "status": "failed", "reason": DIED}
    assert stopped == ["stop"]


def test_a_submission_does_not_read_the_word_of_another(tmp_path: Path, stopped: list[str]) -> None:
    earlier, later = Rank(("worker",), tmp_path, ("job",)), Rank(("worker",), tmp_path, ("job",))
    earlier.word.parent.mkdir()
    earlier.word.write_text(DIED)
    with pytest.raises(RankFailed, match="interrupted"):
        later()
    assert stopped == []


def test_nor_does_another_attempt_of_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Rank(("worker",), tmp_path, ("job",))
    before = one.word
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert one.word != before


def test_a_rank_that_cannot_say_why_still_stops_the_others(
    tmp_path: Path, stopped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank, "run_worker", lambda command: -9)
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        Rank(("worker",), tmp_path, ("job",))()
    assert stopped == ["stop"]
