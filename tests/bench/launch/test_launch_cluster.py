"""An experiment as cluster jobs, on submitit's local executor and on a real one-node Slurm; the workers are stubs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from launching import CONFIG, SFT, SOAR, Stubbed, ctrl_c, once, slurm, wait_until

from bench import records
from bench.errors import BenchError
from bench.launch import cluster, launch
from bench.launch.command import write_config
from bench.launch.queues import SlurmQueue
from bench.launch.settings import LaunchSettings

LOCAL = LaunchSettings(cluster="local", poll_seconds=0.2, signal_seconds=20)
SLURM = LaunchSettings(poll_seconds=0.5, time_minutes=30)
KILLED = "rank {} died (SIGKILL, as when memory runs out: a smaller --micro-batch needs less)"

__all__ = ["slurm"]


@pytest.fixture
def stubbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stubbed:
    return Stubbed(tmp_path, monkeypatch)


@pytest.fixture(params=["local", "slurm"])
def settings(request: pytest.FixtureRequest) -> LaunchSettings:
    if request.param == "slurm":
        request.getfixturevalue("slurm")
    return LOCAL if request.param == "local" else SLURM


def run(stubbed: Stubbed, settings: LaunchSettings):
    return launch("slurm", CONFIG, stubbed.workspace, settings, stubbed.progress)


def two(settings: LaunchSettings) -> LaunchSettings:
    return settings.model_copy(update={"processes": 2})


# -- on both -----------------------------------------------------------------------------------------------------------


def test_a_preparation_then_a_job_each(stubbed: Stubbed, settings: LaunchSettings) -> None:
    outcome = run(stubbed, settings)
    assert outcome.failed == {} and outcome.folder == stubbed.folder
    first, *others = (line["only"] for line in stubbed.trace())
    assert first == ["base"] and sorted(others) == [[SFT], [SOAR]]
    assert f"{SOAR}: completed" in stubbed.said
    run(stubbed, settings)
    assert len(stubbed.trace()) == 3  # all is finished: nothing is submitted


def test_other_settings_of_a_finished_run_are_not_taken_for_the_same(stubbed: Stubbed) -> None:
    """A preparation compares them, as the other launchers do; without it the old results would pass for new ones."""
    run(stubbed, LOCAL)
    (stubbed.folder / "config.json").write_text(json.dumps(CONFIG.model_dump(mode="json") | {"resolved": "sha"}))
    run(stubbed, LOCAL)
    assert len(stubbed.trace()) == 3
    (stubbed.folder / "config.json").write_text(json.dumps(CONFIG.model_dump(mode="json") | {"budget": "steps=9"}))
    run(stubbed, LOCAL)
    assert [line["only"] for line in stubbed.trace()][3:] == [["base"]]


def test_the_ranks_of_a_job_are_told_who_they_are(stubbed: Stubbed, settings: LaunchSettings) -> None:
    assert run(stubbed, two(settings)).failed == {}
    for only in (["base"], [SFT], [SOAR]):
        ranks = sorted((line for line in stubbed.trace() if line["only"] == only), key=lambda line: line["rank"])
        assert [(r["RANK"], r["LOCAL_RANK"], r["WORLD_SIZE"]) for r in ranks] == [("0", "0", "2"), ("1", "1", "2")]
        assert ranks[0]["MASTER_PORT"] == ranks[1]["MASTER_PORT"] and ranks[0]["MASTER_ADDR"] == "127.0.0.1"
        assert ranks[0]["OMP_NUM_THREADS"] == "1"


def test_a_failed_job_is_in_the_outcome_with_its_reason(stubbed: Stubbed, settings: LaunchSettings) -> None:
    stubbed.behave(sft="fail")
    assert run(stubbed, settings).failed == {SFT: "the method broke"}
    assert stubbed.status(SOAR) == ("finished", None)


@pytest.mark.parametrize("behaviour", ["die 1", "lose 0"])
def test_a_job_whose_rank_dies_fails_and_can_be_resumed(
    stubbed: Stubbed, settings: LaunchSettings, behaviour: str
) -> None:
    reason = KILLED.format(behaviour[-1])
    stubbed.behave(sft=behaviour)
    assert run(stubbed, two(settings)).failed == {SFT: reason}
    assert stubbed.status(SFT) == ("failed", reason)
    assert stubbed.status(SOAR) == ("finished", None)
    stubbed.behave()
    assert run(stubbed, settings).failed == {}


def test_a_preparation_that_fails_ends_in_one_line_and_starts_no_job(
    stubbed: Stubbed, settings: LaunchSettings
) -> None:
    stubbed.behave(base="break 0")
    with pytest.raises(BenchError, match=r"^the preparation failed: rank 0: ValueError: no such thing$"):
        run(stubbed, settings)
    assert [line["only"] for line in stubbed.trace()] == [["base"]]
    assert stubbed.status("base") == ("failed", "rank 0: ValueError: no such thing")


# -- submitit's local executor -----------------------------------------------------------------------------------------


def test_ctrl_c_stops_the_jobs_of_this_machine_with_a_checkpoint(stubbed: Stubbed) -> None:
    stubbed.behave(sft="wait")

    with pytest.raises(KeyboardInterrupt), once(lambda: stubbed.started(SFT, ranks=2), ctrl_c):
        run(stubbed, two(LOCAL))
    assert stubbed.said[-1] == "the running jobs were stopped; the same command resumes them"
    assert stubbed.status(SFT)[0] == "interrupted"
    assert {path.name for path in (stubbed.folder / SFT).glob("checkpoint-*")} == {"checkpoint-0", "checkpoint-1"}
    assert run(stubbed, two(LOCAL)).failed == {}


def test_a_time_limit_on_this_machine_starts_the_job_again(stubbed: Stubbed) -> None:
    stubbed.behave(sft="wait")
    assert run(stubbed, LOCAL.model_copy(update={"time_minutes": 1, "signal_seconds": 57})).failed == {}
    assert [line["only"] for line in stubbed.trace()].count([SFT]) == 2


@pytest.mark.parametrize(
    ("changes", "says"), [({"nodes": 2}, "this machine alone"), ({"wait": False}, "--no-wait needs a Slurm cluster")]
)
def test_what_the_local_cluster_cannot_do_ends_in_one_line(stubbed: Stubbed, changes: dict, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        run(stubbed, LOCAL.model_copy(update=changes))


# -- Slurm -------------------------------------------------------------------------------------------------------------


def queued(stubbed: Stubbed) -> dict[str, str]:
    return json.loads((stubbed.folder / "launch" / "queued.json").read_text())["jobs"]


def start_again(job: str) -> None:
    """Spare the test the two minutes that Slurm holds a job back which was put into the queue again."""
    show = ["squeue", "--noheader", "--array", "--format=%i %T %r"]
    wait_until(lambda: f"{job} PENDING BeginTime" in subprocess.check_output(show, text=True))
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)


def test_jobs_run_side_by_side_and_are_found_again_by_the_same_command(stubbed: Stubbed, slurm: Path) -> None:
    stubbed.behave(sft="wait", soar="wait")
    assert run(stubbed, SLURM.model_copy(update={"wait": False})) is None
    jobs = queued(stubbed)
    assert set(jobs) == {"preparation", SFT, SOAR}
    array = jobs[SFT].partition("_")[0]
    assert jobs[SOAR].startswith(f"{array}_")
    assert stubbed.said == [f"{name}: job {job}" for name, job in jobs.items()]
    wait_until(lambda: stubbed.started(SFT) and stubbed.started(SOAR))  # both run, though neither has ended

    with pytest.raises(KeyboardInterrupt), once(lambda: f"{SOAR}: running" in stubbed.said, ctrl_c):
        run(stubbed, SLURM)
    assert stubbed.said[-1].endswith(f"to stop them: scancel {array}")
    for name in (SFT, SOAR):
        (stubbed.folder / name / "checkpoint-0").touch()  # lets the stub go on
    assert run(stubbed, SLURM).failed == {}
    assert len(stubbed.trace()) == 3  # nothing was submitted twice


def test_jobs_that_wait_with_other_settings_are_not_waited_for(stubbed: Stubbed, slurm: Path) -> None:
    stubbed.behave(sft="wait", soar="wait")
    run(stubbed, SLURM.model_copy(update={"wait": False}))
    jobs = queued(stubbed)
    other = CONFIG.model_copy(update={"budget": "steps=9"})
    try:
        with pytest.raises(BenchError, match=r"are queued with other settings .* cancel them with scancel"):
            launch("slurm", other, stubbed.workspace, SLURM, stubbed.progress)
    finally:
        subprocess.run(["scancel", *jobs.values()], check=True)


def test_preemption_stops_a_job_with_a_checkpoint_and_it_goes_on_later(stubbed: Stubbed, slurm: Path) -> None:
    stubbed.behave(sft="wait")
    run(stubbed, two(SLURM).model_copy(update={"wait": False}))
    wait_until(lambda: stubbed.started(SFT, ranks=2))
    subprocess.run(
        ["sbatch", "--partition=urgent", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 1"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    start_again(queued(stubbed)[SFT])
    assert run(stubbed, two(SLURM)).failed == {}
    starts = [line["SLURM_RESTART_COUNT"] for line in stubbed.trace() if line["only"] == [SFT]]
    assert sorted(starts, key=str) == ["1", "1", None, None]
    assert (stubbed.folder / SFT / "checkpoint-1").exists()


def test_the_signal_ahead_of_a_time_limit_queues_the_job_again(stubbed: Stubbed, slurm: Path) -> None:
    stubbed.behave(sft="wait")
    run(stubbed, two(SLURM).model_copy(update={"wait": False}))
    job = queued(stubbed)[SFT]
    wait_until(lambda: stubbed.started(SFT, ranks=2))
    subprocess.run(["scancel", "--signal=USR2", job], check=True)  # what --signal=USR2@seconds sends
    start_again(job)
    assert run(stubbed, two(SLURM)).failed == {}
    starts = [line["SLURM_RESTART_COUNT"] for line in stubbed.trace() if line["only"] == [SFT]]
    assert sorted(starts, key=str) == ["1", "1", None, None]


def test_a_job_that_slurm_kills_is_marked(stubbed: Stubbed, slurm: Path) -> None:
    stubbed.behave(sft="deaf")
    run(stubbed, SLURM.model_copy(update={"wait": False}))
    job = queued(stubbed)[SFT]
    wait_until(lambda: stubbed.started(SFT))
    subprocess.run(["scancel", "--signal=KILL", job], check=True)
    failed = run(stubbed, SLURM).failed
    assert list(failed) == [SFT]
    assert failed[SFT].startswith(f"the cluster ended job {job} (") and "its logs are" in failed[SFT]
    assert stubbed.status(SFT) == ("failed", failed[SFT])


def test_scancel_leaves_a_checkpoint_and_the_job_is_not_queued_again(stubbed: Stubbed, slurm: Path) -> None:
    stubbed.behave(sft="wait")
    run(stubbed, SLURM.model_copy(update={"wait": False}))
    wait_until(lambda: stubbed.started(SFT))
    subprocess.run(["scancel", queued(stubbed)[SFT]], check=True)
    assert run(stubbed, SLURM).failed == {SFT: "interrupted; the same command resumes it"}
    assert (stubbed.folder / SFT / "checkpoint-0").exists()
    assert run(stubbed, SLURM).failed == {}


def test_what_slurm_refuses_ends_in_one_line(stubbed: Stubbed, slurm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BenchError, match=r"^Slurm did not take the job: invalid partition specified: none") as caught:
        run(stubbed, SLURM.model_copy(update={"partition": "none"}))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_without_slurm_the_user_is_told(stubbed: Stubbed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match="there is no Slurm here"):
        run(stubbed, SLURM)


def test_a_preparation_in_the_queue_is_not_that_of_other_subsets(
    stubbed: Stubbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would curate and encode them before their jobs begin, all at once."""
    settings = LaunchSettings()
    queue = SlurmQueue(stubbed.folder, settings)
    monkeypatch.setattr(queue, "states", lambda ids: dict.fromkeys(ids, "PENDING"))
    path = write_config(stubbed.folder, CONFIG)
    ids = {cluster.PREPARATION: "1", SFT: "2"}
    records.write_json(cluster.launch_folder(stubbed.folder) / "queued.json", {"jobs": ids, "config": path.name})
    assert cluster._queued(stubbed.folder, queue, CONFIG) == ids
    more = CONFIG.model_copy(update={"subsets": (*CONFIG.subsets, "random")})
    assert cluster._queued(stubbed.folder, queue, more) == {SFT: "2"}
