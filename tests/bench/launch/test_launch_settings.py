"""Launch settings are read from a file and flags, and whatever is wrong in them ends in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.launch import launch
from bench.launch.queues import sbatch_parameters
from bench.launch.settings import LaunchSettings, read_settings


def test_flags_go_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text('nodes = 2\npartition = "gpu"\nsetup = ["module load cuda"]\n[sbatch]\nqos = "low"\nmem = "64G"\n')
    settings = read_settings(file, {"partition": "a100", "account": None}, ["qos=high", "exclusive"])
    assert (settings.nodes, settings.partition, settings.account) == (2, "a100", None)
    assert settings.setup == ("module load cuda",)
    assert settings.sbatch == {"qos": "high", "mem": "64G", "exclusive": True}


@pytest.mark.parametrize(
    ("flags", "sbatch", "says"),
    [
        ({"node": 2}, (), "unknown launch setting 'node'; did you mean 'nodes'?"),
        ({"nodes": 0}, (), "launch setting nodes: .*greater than or equal to 1.*got 0"),
        ({"time_minutes": "long"}, (), "launch setting time_minutes: .*valid integer"),
        ({"cluster": "pbs"}, (), "launch setting cluster: .*'slurm' or 'local'"),
        ({}, ("=high",), "--sbatch takes option=value, not '=high'"),
        ({}, ("--dependency=afterok:1",), "sbatch option dependency is the launcher's own; leave it out"),
        ({}, ("ntasks_per_node=4",), "sbatch option ntasks-per-node has a setting of its own: processes"),
        ({"sbatch": "qos=high"}, ("mem=1G",), "sbatch takes a table"),
    ],
)
def test_what_is_mistyped_ends_in_one_line(flags: dict, sbatch: tuple[str, ...], says: str) -> None:
    with pytest.raises(BenchError, match=says) as caught:
        read_settings(None, flags, sbatch)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_toml_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="is not there"):
        read_settings(tmp_path / "none.toml", {})
    (tmp_path / "bad.toml").write_text("nodes = ")
    with pytest.raises(BenchError, match="no valid TOML"):
        read_settings(tmp_path / "bad.toml", {})


def test_an_unknown_launcher_ends_in_one_line() -> None:
    with pytest.raises(BenchError, match="unknown launcher 'slrm'; did you mean 'slurm'"):
        launch("slrm", None, None, LaunchSettings(), None)  # type: ignore[arg-type]


def test_sbatch_gets_what_the_settings_say() -> None:
    settings = LaunchSettings(
        nodes=2, gpus_per_node=8, cpus_per_task=12, time_minutes=90, partition="gpu", account="lab",
        array_parallelism=4, signal_seconds=300, sbatch={"qos": "high"}, setup=("module load cuda",),
    )  # fmt: skip
    assert sbatch_parameters(settings, "bench-x", after="17") == {
        "job_name": "bench-x",
        "time": 90,
        "nodes": 2,
        "ntasks_per_node": 8,
        "gpus_per_node": 8,
        "cpus_per_task": 12,
        "partition": "gpu",
        "account": "lab",
        "signal_delay_s": 300,
        "array_parallelism": 4,
        "setup": ["module load cuda"],
        "dependency": "afterok:17",
        "additional_parameters": {"qos": "high", "kill-on-invalid-dep": "yes"},
        "srun_args": ["--kill-on-bad-exit=1", "--cpus-per-task=12"],
    }


def test_without_gpus_a_job_is_one_process_that_depends_on_nothing() -> None:
    parameters = sbatch_parameters(LaunchSettings(), "bench-x", after=None)
    assert parameters["ntasks_per_node"] == 1
    assert not {"gpus_per_node", "dependency", "partition", "additional_parameters"} & set(parameters)
    assert sbatch_parameters(LaunchSettings(processes=2), "bench-x", None)["ntasks_per_node"] == 2
