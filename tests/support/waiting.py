"""One of two processes in a gloo group with a timeout of two seconds, for test_engine.py. Usage: waiting.py CASE

``long``: rank 0 works for longer than the timeout while rank 1 waits. ``dead``: rank 1 is killed while rank 0 waits.
Each rank prints what it came to.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta

import torch

from bench.machine.engine import Engine

TIMEOUT, WORK = 2.0, 5.0


def long(engine: Engine) -> None:
    def work() -> str:
        if engine.is_main:
            time.sleep(WORK)
        return "done"

    print(engine.main_first(work), flush=True)
    if engine.is_main:
        time.sleep(WORK)
    print(engine.broadcast(f"told by {engine.rank}"), flush=True)
    if engine.is_main:
        time.sleep(WORK)
    print(engine.gather_rows([engine.rank]), flush=True)
    engine.close()


def dead(engine: Engine) -> None:
    engine.barrier()
    if not engine.is_main:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        engine.barrier()
    except RuntimeError:
        print("noticed", flush=True)
    os._exit(0)


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT))
    {"long": long, "dead": dead}[sys.argv[1]](Engine.from_environment())
