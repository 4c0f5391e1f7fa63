"""What a launcher starts: an experiment, some of its jobs, or an evaluation, on processes that share the work.

    python -m bench.worker CONFIG.json --cache CACHE --runs RUNS [--only JOB ...]

The processes of a group find each other through torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT); without it there is one. SIGTERM, SIGUSR1 and SIGUSR2 stop between two steps, with a checkpoint. The exit
codes are those of ``bench.launch.ends``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

import click

from bench.errors import BenchError, concerns_a_path, of_path, shown
from bench.launch import ends
from bench.launch.signals import stop_signals
from bench.machine.environment import check_environment
from bench.records import DiskFull

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("config", type=PATH)
@click.option("--cache", type=PATH, required=True, help="Corpora, scores, latents.")
@click.option("--runs", type=PATH, required=True, help="Records of runs.")
@click.option("--only", multiple=True, help="A job's name, or `base`; repeatable. Default: the whole experiment.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def main(config: Path, cache: Path, runs: Path, only: tuple[str, ...], quiet: bool) -> None:
    """Run the experiment or evaluation that CONFIG (JSON, as a launcher writes it) holds, as one process of a group."""
    with stop_signals(then_ignored=True):
        try:
            code = work(config, cache, runs, only, quiet=quiet)
        except KeyboardInterrupt:
            code = ends.INTERRUPTED
        except Exception as error:
            code = _explain(error, config.parent / f"{only[0] if only else 'experiment'}-traceback.txt")
    sys.stderr.flush()
    sys.exit(code)


def work(path: Path, cache: Path, runs: Path, only: tuple[str, ...], *, quiet: bool) -> int:
    """Run what was asked for and return the exit code."""
    from bench import records
    from bench.evaluate.config import EvaluationConfig
    from bench.evaluate.rows import evaluate
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.run import Workspace, run_experiment
    from bench.experiment.toml import validated
    from bench.machine.engine import Engine
    from bench.machine.progress import Progress

    check_environment()
    os.environ["BENCH_CACHE"] = str(cache)  # where suites and metrics look for their assets
    values, places = records.read_json(path), Workspace(cache, runs)
    if not isinstance(values, dict):
        raise BenchError(f"{path} is no configuration; a launcher writes it")
    if "what" in values:
        evaluation = validated(EvaluationConfig, values, f"{path}: ")
        engine = Engine.from_environment(dtype=evaluation.dtype)
        outcome = evaluate(evaluation, places, Progress(quiet=quiet or not engine.is_main), engine=engine)
        if outcome.failed:  # no record says why
            raise BenchError("; ".join(f"{what}: {reason}" for what, reason in outcome.failed.items()))
    else:
        config = validated(ExperimentConfig, values, f"{path}: ")
        engine = Engine.from_environment(dtype=config.dtype, sharding=config.sharding)
        progress = Progress(quiet=quiet or not engine.is_main)
        outcome = run_experiment(config, places, progress, engine=engine, only=only or None)
    engine.close()  # rank 0 has written everything before any rank is gone
    return ends.SOME_FAILED if outcome.failed else ends.FINE


def _explain(error: Exception, path: Path) -> int:
    """Leave an error's line, and a traceback unless it is one that the user can mend; returns the exit code."""
    from bench.errors import JobFailure
    from bench.experiment.loop import OutOfMemory

    if isinstance(error, OSError) and concerns_a_path(error):
        error = of_path(error)
    if isinstance(error, (BenchError, JobFailure, OutOfMemory)):
        _say(str(error))
    else:
        rank = os.environ.get("RANK", "0")
        path = path.with_name(f"rank{rank}-{path.name}")
        with contextlib.suppress(OSError):  # the folder is perhaps what cannot be written
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        _say(f"rank {rank}: {type(error).__name__}: {error} ({path})")
    return ends.DISK_FULL if isinstance(error, DiskFull) else ends.BROKEN


def _say(line: str) -> None:
    """Leave the one line for the launcher, or print it where there is none."""
    line = shown(" ".join(line.split()))
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps({"message": line, "timestamp": int(time.time())}), encoding="utf-8")
            return
    click.echo(f"bench: {line}", err=True)


if __name__ == "__main__":
    main()
