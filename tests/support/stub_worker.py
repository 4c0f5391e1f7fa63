"""Stands in for ``python -m bench.worker`` where launchers are tested: no torch, and it does as the variable STUB says.

STUB is JSON: a job's name to what happens in it, ``fail``, ``disk-full``, ``die RANK`` (SIGKILL), ``lose RANK`` (as
``die``, and the others leave with an error of their own), ``break RANK`` (an error on that rank), ``wait`` (until a
signal asks to stop, then checkpoint; with a checkpoint it goes on at once) or ``deaf`` (waits and hears nothing).
STUB_JOBS are the jobs of the whole experiment. Every worker that starts appends a line to RUNS/trace.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "SLURM_RESTART_COUNT")
rank = int(os.environ.get("RANK", "0"))


def status(folder: Path) -> str:
    path = folder / "status.json"
    return json.loads(path.read_text())["status"] if path.exists() else "new"


def write(folder: Path, status: str, reason: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".status.{os.getpid()}"
    partial.write_text(json.dumps({"v": 1, "status": status, "reason": reason}))
    partial.replace(folder / "status.json")


def leave(code: int, line: str) -> NoReturn:
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        Path(path).write_text(json.dumps({"message": line, "timestamp": int(time.time())}))
    else:
        print(f"bench: {line}", file=sys.stderr)
    sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--quiet", action="store_true")
    arguments = parser.parse_args()
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, lambda number, frame: asked.append(number))
    arguments.runs.mkdir(parents=True, exist_ok=True)
    with (arguments.runs / "trace.jsonl").open("a") as file:
        held = {name: os.environ.get(name) for name in NAMES}
        file.write(json.dumps({"only": arguments.only, "rank": rank, **held}) + "\n")

    run = arguments.runs / json.loads(arguments.config.read_text())["name"]
    behaviour, failed = json.loads(os.environ.get("STUB", "{}")), False
    for name in arguments.only or ["base", *json.loads(os.environ["STUB_JOBS"])]:
        folder = run / name
        if status(folder) == "finished":
            continue
        if rank == 0:
            write(folder, "started")
        time.sleep(0.2)  # every rank has read the status before it changes
        match behaviour.get(name, "").split():
            case ["fail"]:
                failed = True
                if rank == 0:
                    write(folder, "failed", "the method broke")
                continue
            case ["disk-full"]:
                leave(74, "the disk is full")
            case ["die", number]:
                if rank == int(number):
                    os.kill(os.getpid(), signal.SIGKILL)
                while not asked:
                    time.sleep(0.05)
                if rank == 0:
                    write(folder, "interrupted", "stopped by the user; the same command resumes it")
                sys.exit(75)
            case ["lose", number]:
                if rank == int(number):
                    os.kill(os.getpid(), signal.SIGKILL)
                write(folder, "failed", "RuntimeError: Connection closed by peer")
                leave(1, f"rank {rank}: RuntimeError: Connection closed by peer")
            case ["break", number]:
                if rank == int(number):
                    leave(1, f"rank {rank}: ValueError: no such thing")
                while not asked:
                    time.sleep(0.05)
                sys.exit(75)
            case ["wait"]:
                checkpoint = folder / f"checkpoint-{rank}"
                while not asked and not checkpoint.exists():
                    time.sleep(0.05)
                if not checkpoint.exists():
                    time.sleep(0.3)  # the step that was under way
                    checkpoint.touch()
                    if rank == 0:
                        write(folder, "interrupted", "stopped by the user; the same command resumes it")
                    sys.exit(75)
            case ["deaf"]:
                while True:
                    time.sleep(0.05)
        if rank == 0:
            write(folder, "finished")
    sys.exit(3 if failed else 0)


if __name__ == "__main__":
    main()
