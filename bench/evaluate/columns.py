"""Which columns a run has: the metrics of its suite and those that were added, each with the prompts it scores."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import records, registry
from bench.errors import BenchError, unknown
from bench.evaluate.config import EvaluationConfig
from bench.experiment.prompt_file import with_prompts
from bench.records.schema import ExperimentRecord
from bench.sampling import levels

if TYPE_CHECKING:
    from bench.machine.engine import Engine
    from bench.metric import Metric
    from bench.suite import Suite


def load_suite(name: str, limit: int | None, prompts: str = "", repeats: int = 1) -> Suite:
    """A suite by name, whole or with ``limit`` prompts of each group, or on a file of ``prompts``.

    Every prompt is drawn ``repeats`` times as often as the suite has it. BenchError for an unknown name.
    """
    suite: Suite = registry.load("suites", name)()
    suite = with_prompts(suite, Path(prompts)) if prompts else suite
    return (suite.limited(limit) if limit else suite).repeated(repeats)


def open_run(folder: Path, config: EvaluationConfig, engine: Engine) -> tuple[Suite, dict[str, Metric], list[str]]:
    """The suite with the run's columns, their metrics, and which of them to score with.

    Writes ``experiment.json``: a suite, the columns added to it, and no job.
    """
    suite, path = load_suite(config.suite, config.limit, config.prompts, config.repeats), folder / "experiment.json"
    old = engine.broadcast(records.read_raw(ExperimentRecord, path) if engine.is_main and path.exists() else None)
    of_suite = {name: prompts.name for name, prompts in suite.metrics()}
    known = of_suite | {m["name"]: m["prompt_set"] for m in (old["suite"]["metrics"] if old else ()) if m.get("added")}
    wanted = columns_of(suite, [name for name in config.metrics if "@" in name], known)
    alone = [name for name in config.metrics if "@" not in name] + [name for name in wanted if name in of_suite]
    for name in alone:
        if name not in known:
            raise unknown(f"metric of the suite {suite.name}", name, known)
    columns = known | wanted
    suite = suite.with_metrics(columns)
    metrics: dict[str, Metric] = {name: registry.load("metrics", name)() for name in columns}
    check_facts(suite, metrics)
    if engine.is_main:
        about = suite.describe(metrics)
        described = {metric.name: metric for metric in about.metrics}
        described |= {name: described[name].as_added() for name in columns if name not in of_suite}

        def record(names: Iterable[str]) -> ExperimentRecord:
            held = about.model_copy(update={"metrics": [described[name] for name in names]})
            return ExperimentRecord(v=records.VERSION, name=config.run_name, notice=suite.notice, suite=held, jobs=[])

        if old and old | {"suite": levels.with_name(old["suite"])} != records.document(record(known)):
            raise BenchError(
                f"{folder} was evaluated on another suite, with other metrics or another number of repeats; give "
                "this one a name with --name, or delete the folder"
            )
        records.write_record(path, record(columns))
    engine.barrier()
    return suite, metrics, [name for name in columns if name in wanted or name in (alone or known)]


def recorded_suite(record: dict[str, Any], run: Path) -> tuple[Suite, dict[str, str]]:
    """A run's suite as it is here, and the columns it has: metric → prompt set."""
    name, limit = record["suite"]["name"], 0
    if limited := re.fullmatch(r"(.+), first (\d{1,9})", name):
        name, limit = limited[1], int(limited[2])
    file = re.fullmatch(r"(.+?) on (.+) [0-9a-f]{12}", name)
    prompts = _prompt_file(run, file[2]) if file else ""
    suite = load_suite(file[1] if file else name, limit, prompts, repeats=record["suite"].get("repeats", 1))
    if file and suite.name != record["suite"]["name"]:
        raise BenchError(f"{run} was drawn on other prompts than {prompts} holds now, so it cannot be scored further")
    if suite.version != record["suite"]["version"]:
        raise BenchError(
            f"{run} holds version {record['suite']['version']} of the suite {name}, and this is version "
            f"{suite.version}: its prompts may be others; score it with the release that made it"
        )
    return suite, {metric["name"]: metric["prompt_set"] for metric in record["suite"]["metrics"]}


def _prompt_file(run: Path, name: str) -> str:
    """The file of prompts that a run was drawn on, as its configuration names it."""
    config = run / "config.json"
    path = records.read_json(config).get("prompts") if config.is_file() else None
    if not isinstance(path, str) or not path:
        raise BenchError(f"{run} was drawn on the prompts of a file {name}, and does not say where it is")
    return path


def columns_of(suite: Suite, names: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Metric → prompt set of ``names``, each a metric or ``metric@prompt-set``; ``known`` are the columns so far."""
    sets = [prompts.name for prompts in suite.prompt_sets]
    wanted: dict[str, str] = {}
    for column in names:
        name, at, prompt_set = column.partition("@")
        if name not in registry.table("metrics"):
            raise unknown("metric", name, registry.table("metrics"))
        if at and prompt_set not in sets:
            raise unknown("prompt set", prompt_set, sets)
        if not at and name not in known and len(sets) > 1:
            raise BenchError(f"say which prompts {name} is to score: {' or '.join(f'{name}@{s}' for s in sets)}")
        chosen = prompt_set or known.get(name) or wanted.get(name, sets[0])
        if known.get(name, chosen) != chosen:
            raise BenchError(f"{name} scores {known[name]} in this run already, and a column has one prompt set")
        if wanted.setdefault(name, chosen) != chosen:
            raise BenchError(f"{name} is to score {wanted[name]} and {chosen}, and a column has one prompt set")
    return wanted


def check_facts(suite: Suite, metrics: Mapping[str, Any]) -> None:
    """BenchError if a metric cannot judge its prompts."""
    for name, prompts in suite.metrics():
        for fact in metrics[name].needs_facts if name in metrics else ():
            if any(fact not in prompt.facts for prompt in prompts.prompts):
                raise BenchError(f"{name} needs the fact {fact!r} of a prompt, and those of {prompts.name} have none")
        if name in metrics and metrics[name].per_prompt and prompts.repeats < 2:
            several = [each.name for each in suite.prompt_sets if each.repeats > 1]
            instead = f"; {' or '.join(several)} has several" if several else ""
            raise BenchError(
                f"{name} compares pictures of one prompt, and {prompts.name} has one picture of each{instead}"
            )
