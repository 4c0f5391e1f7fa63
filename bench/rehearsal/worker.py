"""The process that rehearses: ``python -P -m bench.rehearsal.worker REQUEST.json``. ``ask`` starts it.

It prints one line of JSON for each rehearsal and ``{"done": ROW}`` after the last of a row, or ``{"error": …}`` where
none can be.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.rehearsal import answers


def main() -> None:
    """Do what the request of the command line asks for."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answers.load(Path(request["library"]))
    try:
        for line in work(request):
            print(json.dumps(line), flush=True)
    except BenchError as error:
        print(json.dumps({"error": str(error)}), flush=True)


def work(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rehearse every stage of an experiment's rows; each by itself, from the pretrained weights."""
    import os

    from bench import plugins
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.toml import validated
    from bench.rehearsal import eight_bit
    from bench.rehearsal.doors import name_text
    from bench.rehearsal.perform import rehearse
    from bench.rehearsal.pretence import pretend
    from bench.rehearsal.results import Setting, to_json
    from bench.rehearsal.stages import short_settings, stages_of
    from bench.rehearsal.tape import Tape

    os.environ["BENCH_CACHE"] = request["cache"]
    config = validated(ExperimentConfig, request["config"], "rehearsal: ")
    plugins.register_all(config.plugins)
    setting = Setting(**request["setting"])
    stages = stages_of(config, Path(request["cache"]), setting)  # on real tensors, before there is a device
    tape = Tape()
    pretend(setting.processes, tape.wait)
    name_text(tape)
    if setting.adam_8bit:
        eight_bit.install()
    for row, its in groupby(stages, key=lambda stage: stage.row):
        for stage in its:
            whole = rehearse(stage, tape)
            yield to_json(whole)
            if request["grid"] and not whole.problem:
                for short in short_settings(whole, own=request["grid"] == "own"):
                    yield to_json(rehearse(stage.shortened(short), tape))
        yield {"done": row}


if __name__ == "__main__":
    main()
