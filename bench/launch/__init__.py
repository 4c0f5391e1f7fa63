"""Where an experiment runs: in this process, in several on this machine, or as jobs of a cluster.

Every launcher ends in the same ``run_experiment`` and leaves the same records. How to use them: ``docs/launchers.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import unknown

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.run import Outcome, Workspace
    from bench.launch.settings import LaunchSettings
    from bench.machine.progress import Progress

LAUNCHERS = ("local", "accelerate", "slurm")


def launch(
    kind: str, config: ExperimentConfig, workspace: Workspace, settings: LaunchSettings, progress: Progress
) -> Outcome | None:
    """Run an experiment and say how it ended; None where it was handed to a cluster and not waited for.

    Raises:
        BenchError: one line for what stopped the whole experiment. A failed job does not: it stands in the outcome.
        KeyboardInterrupt: stopped by Ctrl-C or a signal; the same call resumes.
    """
    match kind:
        case "local":
            from bench.experiment.run import run_experiment
            from bench.launch.signals import stop_signals

            with stop_signals():
                return run_experiment(config, workspace, progress)
        case "accelerate":
            from bench.launch.processes import run_in_processes

            return run_in_processes(config, workspace, settings, progress)
        case "slurm":
            from bench.launch.cluster import run_on_cluster

            return run_on_cluster(config, workspace, settings, progress)
    raise unknown("launcher", kind, LAUNCHERS)
