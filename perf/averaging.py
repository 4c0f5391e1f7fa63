"""What a row should report: the mean of late evaluations, or one evaluation of averaged weights.

Two methods are trained with several seeds at equal FLOPs. Of each job are evaluated

- its weights as they are at 70, 80, 90 and 100 % of the budget, each time with fresh noise;
- at the end, averages of its weights with a half-life of 5, 10 and 20 % of the budget. A step that spends the share s
  of the budget keeps ``0.5 ** (s / half-life)`` of the average, so that methods of few and of many updates are
  averaged alike.

For each choice the table has the mean difference of the two methods over seeds, its standard error, the CPU seconds
that one seed of both takes, and the standard error that ``--cpu-seconds`` of them would have left.

    python perf/averaging.py --seeds 0,1,2,3,4,5 --scenes 240      # hours; the same command resumes
    python perf/averaging.py --seeds 0,1 --budget flops=1e12 --scenes 12 --out runs/averaging-try

Both methods of a seed share their noise, and seeds do not. So the standard error holds noise as well as trainings: the
statement is on this prompt list. Time is CPU time of the process, so other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from common import machine

from bench import records, registry
from bench.errors import BenchError
from bench.evaluation import Evaluator, Painter
from bench.experiment.loop import JobRun
from bench.experiment.session import Session
from bench.job import Job
from bench.method import PostTrainingMethod
from bench.records.reading import scores_by_group
from bench.records.schema import EvaluationRecord, MetricRecord
from bench.rng import derive_seed
from bench.suite import Suite
from bench.training.average import BudgetAverage
from bench.training.budget import Budget

METRICS = ("world_geneval", "world_aesthetic", "world_clipscore")
FRACTIONS = (0.7, 0.8, 0.9, 1.0)
HALF_LIVES = (0.05, 0.1, 0.2)
CPU_SECONDS = 7200.0
"""Two CPU hours: what a comparison of SFT and SOAR may cost in this project."""

LAST, LATE = "weights at the end", "mean of late weights"


def averaged(half_life: float) -> str:
    """Name of the choice to evaluate an average."""
    return f"average, half-life {half_life:.0%}"


# -- one job -----------------------------------------------------------------------------------------------------------


class Averages:
    """Goes before a method's class: averages of what it trains, and the CPU seconds of its steps and of the averages.

    Attributes:
        budget: of the job.
        half_lives: as shares of the budget, one for each average.
    """

    budget: Budget
    half_lives: tuple[float, ...]

    def setup(self, job: Job) -> None:
        super().setup(job)  # type: ignore[misc]
        self.averages = [BudgetAverage(job.parameters, half_life) for half_life in self.half_lives]
        self.seconds = {"training": 0.0, "averages": 0.0}

    def step(self, job: Job) -> None:
        before, start = job.meter.spent(self.budget.currency), time.process_time()
        super().step(job)  # type: ignore[misc]
        share, trained = (job.meter.spent(self.budget.currency) - before) / self.budget.amount, time.process_time()
        for average in self.averages:
            average.follow(job.parameters, share)
        self.seconds["training"] += trained - start
        self.seconds["averages"] += time.process_time() - trained

    def state_dict(self) -> dict[str, Any]:
        own = {"averages": [average.state_dict() for average in self.averages], "seconds": self.seconds}
        return {"method": super().state_dict(), **own}  # type: ignore[misc]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state["method"])  # type: ignore[misc]
        for average, kept in zip(self.averages, state["averages"], strict=True):
            average.load_state_dict(kept)
        self.seconds = dict(state["seconds"])


def with_averages(method: PostTrainingMethod, budget: Budget, half_lives: Sequence[float]) -> Any:
    """The same method, which also keeps averages."""
    kind = type(method)
    about = {"budget": budget, "half_lives": tuple(half_lives)}
    return type(f"Averaged{kind.__name__}", (Averages, kind), about)(method.config)


class FreshNoise(Evaluator):
    """The harness's evaluator; each evaluation has noise of its own, and its CPU seconds are kept beside it.

    Attributes:
        seed: of the trainings that it evaluates. Both methods of a seed have the same noise.
    """

    seed = 0

    def run(self, painter: Painter, folder: Path, *, header: EvaluationRecord, **how: Any) -> None:
        """Evaluate all prompts. What was cut off begins again, so that its time is that of a whole evaluation."""
        if (folder / "cpu.json").exists():
            return
        for begun in (folder, folder.with_name(f".{folder.name}.partial")):
            shutil.rmtree(begun, ignore_errors=True)
        listed, start = self.suite, time.process_time()
        self.suite = replace(listed, seed=derive_seed(listed.seed, "averaging", self.seed, f"{header.fraction:g}"))
        try:
            super().run(painter, folder, header=header)
        finally:
            self.suite = listed
        records.write_json(folder / "cpu.json", {"seconds": time.process_time() - start})


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: the statistic of each metric, and CPU seconds."""

    scores: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Trained:
    """What a job came to.

    Attributes:
        training: CPU seconds of its steps.
        averages: those of keeping all averages.
        late: evaluations of its weights, by share of the budget.
        averaged: of its averages, by half-life.
    """

    method: str
    seed: int
    updates: int
    training: float
    averages: float
    late: dict[str, Evaluated]
    averaged: dict[str, Evaluated]

    @staticmethod
    def of(values: Mapping[str, Any]) -> Trained:
        """From its JSON."""
        parts = {key: {name: Evaluated(**each) for name, each in values[key].items()} for key in ("late", "averaged")}
        return Trained(**{**values, **parts})


def train(
    folder: Path,
    method: PostTrainingMethod,
    session: Session,
    budget: Budget,
    evaluator: FreshNoise,
    name: str,
    *,
    fractions: tuple[float, ...] = FRACTIONS,
    half_lives: tuple[float, ...] = HALF_LIVES,
) -> Trained:
    """Train and evaluate one job in ``folder``, or go on where it was cut off; a finished one is read."""
    done = folder / "result.json"
    if done.exists():
        return Trained.of(records.read_json(done))
    evaluator.seed = session.job.seed
    following: Any = with_averages(method, budget, half_lives)
    JobRun(folder, following, session, budget, fractions, evaluator).run()
    late = {}
    for path in (folder / "evaluations").glob("[!.]*/evaluation.json"):
        late[f"{records.read_json(path)['fraction']:g}"] = read_evaluated(path.parent, evaluator)
    end = EvaluationRecord(v=records.VERSION, step=session.job.step, fraction=1.0, spent=session.ledger.meter.counts())
    averages = {}
    for half_life, average in zip(half_lives, following.averages, strict=True):
        place = folder / "averages" / f"{half_life:g}"
        with session.ledger.unmetered(), session.job.swapped(average.values), torch.no_grad():
            evaluator.run(evaluator.painter(session.job.policy), place, header=end)
        averages[f"{half_life:g}"] = read_evaluated(place, evaluator)
    seconds, updates = following.seconds, session.ledger.meter.updates
    made = Trained(name, session.job.seed, updates, seconds["training"], seconds["averages"], late, averages)
    records.write_json(done, asdict(made))
    return made


def read_evaluated(folder: Path, evaluator: Evaluator) -> Evaluated:
    """An evaluation's statistics, as tables have them: the mean over images, or of the means of groups."""
    columns = evaluator.suite.describe(evaluator.metrics).metrics
    return Evaluated(
        {column.name: _statistic(folder / "evaluation.json", column) for column in columns},
        float(records.read_json(folder / "cpu.json")["seconds"]),
    )


def _statistic(evaluation: Path, column: MetricRecord) -> float:
    groups = [*scores_by_group(evaluation, column.name).values()]
    if not column.grouped:
        groups = [list(chain.from_iterable(groups))]
    return statistics.fmean(map(statistics.fmean, groups))


# -- all jobs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """What one choice of what a row reports comes to, in one metric.

    Attributes:
        difference: second method minus first, the mean over seeds.
        error: its standard error over these seeds.
        seconds: CPU seconds that one seed of both methods takes.
        equal: the standard error that the same CPU seconds for every choice leave.
    """

    metric: str
    choice: str
    difference: float
    error: float
    seconds: float
    equal: float


def choices(job: Trained) -> dict[str, Evaluated]:
    """What each choice reports of a job, and what it takes from the first step on."""
    last = job.late["1"]
    mean = {name: statistics.fmean(each.scores[name] for each in job.late.values()) for name in last.scores}
    made = {
        LAST: Evaluated(last.scores, job.training + last.seconds),
        LATE: Evaluated(mean, job.training + sum(each.seconds for each in job.late.values())),
    }
    for half_life, each in job.averaged.items():
        seconds = job.training + job.averages / len(job.averaged) + each.seconds
        made[averaged(float(half_life))] = Evaluated(each.scores, seconds)
    return made


def compare(jobs: Sequence[Trained], methods: tuple[str, str], cpu_seconds: float) -> list[Choice]:
    """Every choice in every metric, over the seeds that both methods have.

    With n seeds the squared standard error is v / n. A seed of both methods takes t seconds, so that ``cpu_seconds``
    pay for ``cpu_seconds / t`` of them.
    """
    found = {(job.method, job.seed): choices(job) for job in jobs}
    seeds = sorted({seed for _, seed in found if all((method, seed) in found for method in methods)})
    if len(seeds) < 2:
        raise BenchError("a standard error over seeds takes two seeds that both methods have finished")
    first, second = ([found[method, seed] for seed in seeds] for method in methods)
    made = []
    for metric in first[0][LAST].scores:
        for choice in first[0]:
            differences = [
                b[choice].scores[metric] - a[choice].scores[metric] for a, b in zip(first, second, strict=True)
            ]
            spread = statistics.stdev(differences)
            seconds = statistics.fmean(
                a[choice].seconds + b[choice].seconds for a, b in zip(first, second, strict=True)
            )
            error, equal = spread / math.sqrt(len(seeds)), spread * math.sqrt(seconds / cpu_seconds)
            made.append(Choice(metric, choice, statistics.fmean(differences), error, seconds, equal))
    return made


def table(found: Sequence[Choice], methods: tuple[str, str], seeds: int, cpu_seconds: float) -> Iterator[str]:
    """Lines of text."""
    yield f"{methods[1]} minus {methods[0]}, {seeds} seeds; SE at {cpu_seconds:,.0f} CPU seconds for each choice"
    yield f"{'metric':<18}{'choice':<26}{'difference':>12}{'SE':>10}{'CPU s a seed':>14}{'SE, equal CPU':>15}"
    for row in found:
        numbers = f"{row.difference:>+12.4f}{row.error:>10.4f}{row.seconds:>14.0f}{row.equal:>15.4f}"
        yield f"{row.metric:<18}{row.choice:<26}{numbers}"
    yield f"- a standard error from {seeds} seeds is itself known to {1 / math.sqrt(2 * (seeds - 1)):.0%}"


def scenes(suite: Suite, most: int) -> Suite:
    """The suite's scenes alone, at most so many of them: every n-th of each group."""
    (found,) = (each for each in suite.prompt_sets if set(METRICS) <= set(each.metrics))
    part = replace(found, metrics=METRICS).every(math.ceil(len(found.prompts) / most))
    return replace(suite, prompt_sets=(part,), on_the_way=1)


def study(arguments: argparse.Namespace) -> Iterator[Trained]:
    """Every job, seeds outermost, so that the table is of whole pairs early."""
    from bench.backbone import loader
    from bench.experiment.config import read_experiment
    from bench.experiment.data import prepare
    from bench.experiment.keys import job_specs
    from bench.experiment.prompt_file import suite_of
    from bench.experiment.run import prepare_metric
    from bench.experiment.workbench import Workbench
    from bench.machine.engine import Engine
    from bench.machine.progress import Progress

    flags = dict(methods=arguments.methods, seeds=arguments.seeds, subsets=(arguments.subset,), probes=False)
    config = read_experiment(None, flags | ({"budget": arguments.budget} if arguments.budget else {}))
    engine, progress, budget = Engine(), Progress(quiet=True), Budget.parse(config.budget)
    suite, backbone = suite_of(config), loader.find(config.backbone, engine=engine)
    part = scenes(suite, arguments.scenes)
    settings = {
        "budget": str(budget), "subset": arguments.subset, "suite": [suite.name, suite.version],
        "scenes": part.images(), "backbone": backbone.fingerprint,
    }  # fmt: skip
    path = arguments.out / "settings.json"
    if path.exists() and records.read_json(path) != settings:
        raise BenchError(f"{arguments.out} holds jobs of other settings; give another folder with --out")
    records.write_json(path, settings)
    metrics = {name: registry.load("metrics", name)() for name in METRICS}
    for metric in metrics.values():
        prepare_metric(metric, progress, vital=True)
    workbench = Workbench(config, arguments.cache, engine, backbone, suite, metrics, progress)
    data = prepare(workbench, preference_pairs=False)
    evaluator = FreshNoise(part, backbone, metrics, engine)
    null = backbone.encode_prompts([""])
    for spec in job_specs(config, suite, backbone.spec.scale):
        (stage,), subset = spec.recipe.stages, data.subsets[spec.key.subset].training
        session = Session.of(
            backbone=backbone, null=null, data=subset.only_what(spec.recipe.needs), seed=spec.key.seed,
            engine=engine, levels=suite.sampler.levels,
        )  # fmt: skip
        yield train(arguments.out / spec.name, stage.make(), session, budget, evaluator, spec.key.method)


def main() -> None:
    """Run the study, print the table after each whole pair and leave it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=lambda text: tuple(text.split(",")), default=("sft", "soar"))
    parser.add_argument("--seeds", type=lambda text: tuple(map(int, text.split(","))), default=tuple(range(6)))
    parser.add_argument("--scenes", type=int, default=240, help="at most so many, every n-th of each task")
    parser.add_argument("--subset", default="high_aesthetic")
    parser.add_argument("--budget", help="of each job; default: the experiment's")
    parser.add_argument("--cpu-seconds", type=float, default=CPU_SECONDS, help="that each choice is given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/averaging"), help="of the jobs; a rerun resumes there")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--json", type=Path, help="file for settings, figures and machine")
    arguments = parser.parse_args()
    if len(arguments.methods) != 2:
        parser.error("--methods takes two methods")
    torch.set_num_threads(arguments.threads)
    jobs: list[Trained] = []
    for job in study(arguments):
        jobs.append(job)
        seeds = len(jobs) // 2
        print(f"{job.method}, seed {job.seed}: {job.updates} updates, {job.training:.0f} CPU s of training", flush=True)
        if seeds > 1 and len(jobs) % 2 == 0:
            found = compare(jobs, arguments.methods, arguments.cpu_seconds)
            print(*table(found, arguments.methods, seeds, arguments.cpu_seconds), sep="\n", flush=True)
    if arguments.json:
        settings = {key: value for key, value in vars(arguments).items() if key != "json"}
        content = {
            "benchmark": "averaging",
            "machine": machine(torch.device("cpu")),
            "settings": settings,
            "choices": [asdict(row) for row in compare(jobs, arguments.methods, arguments.cpu_seconds)],
            "jobs": [asdict(job) for job in jobs],
        }
        arguments.json.write_text(json.dumps(content, indent=1, default=str) + "\n")
        print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
