"""Several processes on this machine: how they are started, and what is recorded when one of them ends badly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from launching import CONFIG, SFT, SOAR, Stubbed, once, wait_until

from bench.errors import BenchError
from bench.launch import ends, launch
from bench.launch.processes import GroupEnd, first_end, run_processes
from bench.launch.settings import LaunchSettings
from bench.records.status import write_status

TWO = LaunchSettings(processes=2, signal_seconds=20)
KILLED = "rank 1 died (SIGKILL, as when memory runs out: a smaller --micro-batch needs less)"


@pytest.fixture
def stubbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stubbed:
    return Stubbed(tmp_path, monkeypatch)


def run(stubbed: Stubbed, settings: LaunchSettings = TWO):
    return launch("accelerate", CONFIG, stubbed.workspace, settings, stubbed.progress)


def test_the_ranks_are_told_who_they_are(stubbed: Stubbed) -> None:
    outcome = run(stubbed)
    assert outcome.failed == {} and outcome.folder == stubbed.folder
    ranks = sorted(stubbed.trace(), key=lambda line: line["rank"])
    assert [(r["RANK"], r["LOCAL_RANK"], r["WORLD_SIZE"], r["only"]) for r in ranks] == [
        ("0", "0", "2", []),
        ("1", "1", "2", []),
    ]
    assert ranks[0]["MASTER_PORT"] == ranks[1]["MASTER_PORT"] and ranks[0]["MASTER_ADDR"] == "127.0.0.1"
    assert ranks[0]["OMP_NUM_THREADS"] == str(max((os.cpu_count() or 1) // 2, 1))


def test_a_failed_job_is_in_the_outcome_with_its_reason(stubbed: Stubbed) -> None:
    stubbed.behave(sft="fail")
    assert run(stubbed).failed == {SFT: "the method broke"}
    assert stubbed.status(SOAR) == ("finished", None)


@pytest.mark.parametrize(("behaviour", "reason"), [("die 1", KILLED), ("lose 1", KILLED)])
def test_a_job_whose_rank_dies_fails_and_the_others_run(stubbed: Stubbed, behaviour: str, reason: str) -> None:
    stubbed.behave(sft=behaviour)
    assert run(stubbed).failed == {SFT: reason}
    assert stubbed.status(SFT) == ("failed", reason)
    assert stubbed.status(SOAR) == ("finished", None)
    assert [line["only"] for line in stubbed.trace()] == [[], [], [SOAR], [SOAR]]
    assert stubbed.said == [f"{SFT} failed: {reason}"]
    stubbed.behave()
    assert run(stubbed).failed == {}  # the same command resumes
    assert stubbed.status(SFT) == ("finished", None)


def test_an_error_on_one_rank_is_the_reason(stubbed: Stubbed) -> None:
    stubbed.behave(soar="break 1")
    assert run(stubbed).failed == {SOAR: "rank 1: ValueError: no such thing"}
    assert stubbed.status(SFT) == ("finished", None)


def test_a_death_before_the_first_job_stops_everything(stubbed: Stubbed) -> None:
    stubbed.behave(base="die 0")
    with pytest.raises(BenchError, match=r"^rank 0 died \(SIGKILL"):
        run(stubbed)
    assert stubbed.status("base")[0] == "failed"
    assert not (stubbed.folder / SFT).exists()


def test_a_full_disk_stops_everything_and_leaves_the_job_to_be_resumed(stubbed: Stubbed) -> None:
    stubbed.behave(sft="disk-full")
    with pytest.raises(BenchError, match=r"^the disk is full$"):
        run(stubbed)
    assert stubbed.status(SFT) == ("started", None)
    assert len(stubbed.trace()) == 2


def test_a_job_that_failed_in_an_earlier_command_is_not_blamed_for_a_later_death(stubbed: Stubbed) -> None:
    stubbed.behave(sft="fail")
    run(stubbed)
    before = stubbed.status(SFT)
    assert ends.blame(stubbed.folder, [SFT, SOAR], KILLED, since=time.time()) == []
    assert stubbed.status(SFT) == before


def test_a_job_that_was_left_as_running_by_an_earlier_command_is_not_blamed(stubbed: Stubbed) -> None:
    """A kill, or a full disk, leaves it so."""
    for name in (SFT, SOAR):
        write_status(stubbed.folder / name, "started")
    os.utime(stubbed.folder / SFT / "status.json", (0, 0))
    assert ends.blame(stubbed.folder, [SFT, SOAR], KILLED, since=time.time() - 60) == [SOAR]
    assert stubbed.status(SFT) == ("started", None)


def test_sigterm_reaches_the_workers_which_stop_with_a_checkpoint(stubbed: Stubbed) -> None:
    stubbed.behave(sft="wait")

    usual = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(KeyboardInterrupt),
        once(lambda: stubbed.started(SFT, ranks=2), lambda: os.kill(os.getpid(), signal.SIGTERM)),
    ):
        run(stubbed)
    assert signal.getsignal(signal.SIGTERM) == usual
    assert stubbed.status(SFT)[0] == "interrupted"
    assert {path.name for path in (stubbed.folder / SFT).glob("checkpoint-*")} == {"checkpoint-0", "checkpoint-1"}
    assert run(stubbed).failed == {}


def test_nothing_but_one_line_is_printed_when_a_rank_dies(stubbed: Stubbed, capfd: pytest.CaptureFixture[str]) -> None:
    stubbed.behave(sft="die 1", soar="die 1")
    outcome = run(stubbed)
    assert outcome.failed == {SFT: KILLED, SOAR: KILLED}
    assert capfd.readouterr() == ("", "")


def test_a_process_that_does_not_end_is_killed(tmp_path: Path) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    code = (
        "import sys; from bench.launch.processes import run_processes\n"
        f"print(run_processes((sys.executable, '-S', '-c', {script!r}), 1, 1).code)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == f"{ends.INTERRUPTED}\n"


SLEEPER = "import os, time; os.write(1, f'{os.getpid()}\\n'.encode()); time.sleep(600)"


def lives(pid: int) -> bool:
    """Whether a process is there that has not ended; one that nobody has waited for yet is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "start",
    [
        "from bench.launch.processes import run_processes; run_processes(command, 2, 1)",
        "import submitit; from bench.launch.rank import Rank\n"
        "submitit.JobEnvironment = lambda: SimpleNamespace(global_rank=0, num_tasks=1)\n"
        "Rank(command, Path())()",
    ],
    ids=["ranks of accelerate", "a worker of a cluster job"],
)
def test_processes_that_were_started_end_with_a_launcher_that_is_killed(start: str) -> None:
    code = (
        "import sys; from pathlib import Path; from types import SimpleNamespace\n"
        f"command = (sys.executable, '-S', '-c', {SLEEPER!r})\n{start}"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    many = 2 if "run_processes" in start else 1
    started = [int(process.stdout.readline()) for _ in range(many)]
    assert all(map(lives, started))
    process.kill()
    wait_until(lambda: not any(map(lives, started)))
    process.wait()
    process.stdout.close()


def test_the_local_clusters_workers_stop_with_a_command_that_is_killed(tmp_path: Path) -> None:
    worker = "import os, pathlib, time; pathlib.Path('pid').write_text(f'{os.getpid()} '); time.sleep(600)"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from bench.launch.queues import LocalQueue, LaunchSettings; from bench.launch.rank import Rank\n"
        "queue = LocalQueue(Path('logs'), LaunchSettings(cluster='local'))\n"
        f"[job] = queue.submit([Rank((sys.executable, '-S', '-c', {worker!r}), Path('run'))], 'x')\n"
        "queue.states([job]); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    pid = tmp_path / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().endswith(" "))
    started = int(pid.read_text())
    assert lives(started)
    process.kill()
    process.wait()
    wait_until(lambda: not lives(started))


def test_a_process_whose_launcher_is_gone_before_it_starts_ends_at_once() -> None:
    code = "import os; from bench.launch.bound import die_with; die_with(os.getpid()); print('still here')"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_where_the_system_does_not_tell_a_process_of_its_parents_death_it_is_watched() -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "child = 'import os, sys, time; sys.platform = \"other\"; from bench.launch.bound import die_with;'\n"
        "child += 'die_with(os.getppid()); print(os.getpid(), flush=True); time.sleep(600)'\n"
        "subprocess.run([sys.executable, '-c', child])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    started = int(process.stdout.readline())
    assert lives(started)
    process.kill()
    process.wait()
    wait_until(lambda: not lives(started))
    process.stdout.close()


def test_a_process_that_was_being_started_when_a_signal_came_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.launcher import api

    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    started: list[subprocess.Popen[str]] = []

    def interrupted(*launch: object) -> object:
        child = subprocess.Popen([sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdout is not None and child.stdout.readline() == "up\n"
        raise SignalException("", signal.SIGTERM)

    monkeypatch.setattr(api, "elastic_launch", interrupted)
    assert run_processes(("none",), 1, 1).code == ends.INTERRUPTED
    assert started[0].wait(timeout=30) == -signal.SIGKILL


def test_an_exit_code_that_nobody_knows_is_named() -> None:
    assert run_processes((sys.executable, "-S", "-c", "raise SystemExit(9)"), 1, 1) == GroupEnd(
        9, "rank 0 died (exit code 9)"
    )


def failure(code: int, at: int, error_file: Path | None = None, message: str = "") -> SimpleNamespace:
    return SimpleNamespace(exitcode=code, timestamp=at, error_file=str(error_file or "<N/A>"), message=message)


def test_the_rank_that_was_killed_is_named_and_not_those_that_lost_it(tmp_path: Path) -> None:
    file = tmp_path / "error.json"
    file.touch()
    lost = failure(1, 100, file, "rank 0: RuntimeError: Connection closed by peer")
    assert first_end({0: lost, 1: failure(-9, 101)}).reason == KILLED
    assert first_end({0: failure(ends.INTERRUPTED, 100), 1: failure(-9, 101)}).reason == KILLED
    assert first_end({0: failure(-15, 100), 1: failure(1, 100)}).reason == "rank 1 died (exit code 1)"
    assert first_end({0: failure(-15, 100), 1: failure(ends.INTERRUPTED, 100)}).code == ends.INTERRUPTED
    # killed by the agent half a minute later, because it did not hear
    assert first_end({0: lost, 1: failure(-9, 131)}).reason == "rank 0: RuntimeError: Connection closed by peer"
    assert first_end({0: failure(ends.INTERRUPTED, 100), 1: failure(-9, 131)}).code == ends.INTERRUPTED


@pytest.mark.parametrize(("settings", "says"), [(LaunchSettings(processes=9), "more than this machine's 4 GPUs")])
def test_what_this_machine_cannot_do_ends_in_one_line(
    stubbed: Stubbed, monkeypatch: pytest.MonkeyPatch, settings: LaunchSettings, says: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    with pytest.raises(BenchError, match=says):
        run(stubbed, settings)
    assert stubbed.trace() == []
