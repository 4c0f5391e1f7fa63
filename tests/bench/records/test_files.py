"""Files are there whole or not at all, and what a killed process left is gone after the next start."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import pytest

from bench import records
from bench.errors import BenchError
from bench.records import atomic

HOLDER = """
import os, sys, time
from pathlib import Path
from typing import IO
from bench.records import atomic
with atomic.unfinished(Path(sys.argv[1]), "held.json") as file:
    file.write(b"half")
    file.flush()
    print("held", flush=True)
    time.sleep(600)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process in the middle of writing."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    process = holder(tmp_path)
    atomic.sweep(tmp_path)
    [left] = names(tmp_path)
    assert left.startswith(".held.json.") and left.endswith(".partial")
    process.kill()
    process.wait()
    assert names(tmp_path) == [left]
    atomic.sweep(tmp_path)
    assert names(tmp_path) == []


def test_sigterm_of_a_writer_is_swept_too(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.terminate()
    process.wait()
    atomic.sweep(tmp_path)
    assert names(tmp_path) == []


def test_a_process_that_writes_into_a_folder_sweeps_it_first(tmp_path: Path) -> None:
    (tmp_path / ".scores.json.host.4711.partial").write_text("half")
    records.write_json(tmp_path / "other.json", {})
    assert names(tmp_path) == ["other.json"]


def test_only_unfinished_files_are_swept(tmp_path: Path) -> None:
    kept = [".hidden", "a.partial", ".env.json", ".9.partial/images/x.png", "sub/.x.json.partial"]
    for name in kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / ".link.partial").symlink_to(tmp_path / ".hidden")
    atomic.sweep(tmp_path)
    assert names(tmp_path) == sorted([*kept, ".link.partial"])


def test_a_run_is_swept_to_its_last_folder_but_for_images_of_another_process(tmp_path: Path) -> None:
    left = [".experiment.json.a.partial", "sft/.status.json.a.partial", "sft/evaluations/9/.samples.jsonl.a.partial"]
    for name in left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    atomic.sweep_below(tmp_path)
    assert names(tmp_path) == []


def test_a_write_that_breaks_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def broken(file) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records.write_with(path, broken)
    assert path.read_text() == "old" and names(tmp_path) == ["a.json"]


def test_a_scratch_folder_is_gone_at_the_end_and_one_of_a_killed_process_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = (
        "import time; from bench.records.atomic import scratch\n"
        "with scratch() as folder: (folder / 'picture').touch(); print('up', flush=True); time.sleep(600)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    with atomic.scratch() as folder:
        assert folder.is_dir() and sum(name.endswith("/picture") for name in names(tmp_path)) == 1
    assert not folder.exists()
    process.kill()
    process.wait()
    with atomic.scratch():
        assert not any(name.endswith("/picture") for name in names(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_was_killed_is_whole_after_the_same_command(tmp_path: Path) -> None:
    from bench.report import render_published

    render_published(tmp_path / "once")
    (tmp_path / "again").mkdir()
    process = holder(tmp_path / "again")
    process.kill()
    process.wait()
    for _ in range(2):  # the second time this process has written there before
        (tmp_path / "again" / ".index.html.4711.partial").touch()
        render_published(tmp_path / "again")
        assert names(tmp_path / "again") == names(tmp_path / "once")


STOPPED = "bench: stopped; everything recorded is kept, and the same command resumes\n"
WAITS = """
import sys, time
from bench import cli, report
def wait(*given):
    print("up", flush=True)
    {body}
def rest():  # in short sleeps: a signal just before a long one would wait for its end
    while True: time.sleep(0.1)
report.render_published = wait
cli.main()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
@pytest.mark.parametrize(
    "body",
    [
        "rest()",
        # a library that makes an error of its own of whatever comes
        "\n    try: rest()\n    except BaseException as error: raise ImportError('no numpy') from None",
        # a destructor, which no error can leave
        "\n    class Slow:\n        def __del__(self): time.sleep(2)\n    slow = Slow(); del slow; rest()",
    ],
    ids=["sleep", "converted", "destructor"],
)
def test_a_stop_is_one_line_in_a_command_that_draws(tmp_path: Path, number: int, status: int, body: str) -> None:
    command = [sys.executable, "-c", WAITS.format(body=body), "report", "--published", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(number)
    out, error = process.communicate(timeout=120)
    assert (process.returncode, out, error) == (status, "", STOPPED)


def test_an_error_of_the_user_is_no_stop(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from bench.cli import main; main()", "report", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and done.stderr != STOPPED
    assert BenchError.__name__ not in done.stderr


@pytest.mark.parametrize("made", ["scratch", "unfinished"])
def test_a_new_folder_that_another_process_sweeps_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    """Workers that start together sweep the temporary folder at the same time."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lock, swept = fcntl.flock, []

    def late(file: IO[bytes], operation: int) -> None:
        folder = Path(file.name).parent
        if not swept and folder != tmp_path:
            swept.append(folder)
            shutil.rmtree(folder)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic.scratch() if made == "scratch" else atomic.unfinished_folder(tmp_path / "result") as folder:
        assert swept and folder.is_dir() and not swept[0].exists()
    assert not list(tmp_path.iterdir())
