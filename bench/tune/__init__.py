"""Tuning: the same number of trials for every row, on prompts and a seed that the experiment does not report.

A trial is a variant of its row, so its jobs are ordinary jobs of a run folder. Nothing else is kept: a command that is
given again asks the search the same questions, and answers them from the records of the jobs that are there.
How to use it, and what is fair about it: ``docs/tuning.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import plugins, records, registry
from bench.errors import BenchError, shown, unknown
from bench.experiment.config import ExperimentConfig, method_config
from bench.experiment.prompt_file import suite_of
from bench.experiment.toml import validated
from bench.experiment.tuned import Tuned, prompt_key
from bench.records.schema import JobRecord
from bench.tune.space import Dimension, read_ranges, space_of

if TYPE_CHECKING:
    from bench.experiment.run import Outcome
    from bench.tune.objective import Scored
    from bench.tune.trials import Trial

TRIALS = 8
"""Trials per row: the present setting, three random ones and four that follow results. Ours; no source has any."""
SEED = 1000
"""Seed of the trials' jobs and of the search; experiments count theirs from 0."""


@dataclass(frozen=True)
class Request:
    """What is tuned how, beside the experiment.

    Attributes:
        rows: methods and variants of the experiment; none: every method behind its rows, whose variants follow it.
        suite: of validation prompts; empty: the experiment's own with ``_validation`` after its name.
        prompts: file of validation prompts, for the experiment's metrics; instead of ``suite``.
        objective: a ranked metric; empty: the mean over all columns that are ranked.
        space: ``NAME.KEY=LOW:HIGH`` ranges.
        name: of the run folder; empty: the experiment's with ``-tune`` after it.
    """

    rows: tuple[str, ...] = ()
    trials: int = TRIALS
    seed: int = SEED
    suite: str = ""
    prompts: str = ""
    objective: str = ""
    space: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class Result:
    """The trials of all rows, round by round, and the settings that came out; rows of which all failed are ``lost``."""

    trials: tuple[Trial, ...]
    tuned: Tuned
    lost: tuple[str, ...]


class Tuning:
    """One command's trials.

    Raises:
        BenchError: what cannot be tuned fairly, in one line, before anything runs.
    """

    def __init__(self, config: ExperimentConfig, request: Request) -> None:
        self.request = request
        self.experiment = config
        self.config = _validation(config, request)
        self.suite = suite_of(self.config)
        _check_prompts(set(suite_of(config).texts()), self.suite.texts(), config.suite, self.suite.name)
        _check_objective(request.objective, [name for name, _ in self.suite.metrics()])
        rows = _rows(config, request.rows)
        ranges = read_ranges(request.space, rows)
        self._space = {row: self._space_of(row, ranges.get(row, {})) for row in rows}

    def run(self, run: Callable[[ExperimentConfig], Outcome | None], runs: Path, say: Callable[[str], None]) -> Result:
        """Make every trial that is not there yet.

        Args:
            run: an experiment, to its end; it keeps what is finished.
            runs: where it leaves its records.
            say: prints a line.
        """
        from bench.tune.search import Search
        from bench.tune.trials import Trial

        folder = runs / self.config.run_name
        searches = {row: Search(row, space, self.request.seed) for row, space in self._space.items()}
        trials = []
        for number in range(self.request.trials):
            settings = {row: search.ask() for row, search in searches.items()}
            self._round(run, folder, number, settings)
            for row, search in searches.items():
                jobs = self._jobs(number, row, settings[row])
                scored = self._judge(folder, jobs)
                search.tell(scored.value)
                trials.append(Trial(row, number, settings[row], tuple(jobs), scored))
                shown = ", ".join(f"{key} {value:.3g}" for key, value in settings[row].items())
                outcome = f"failed: {scored.reason}" if scored.value is None else f"{scored.value:+.3f}"
                say(f"{row}, trial {number + 1} of {self.request.trials}, {shown}: {outcome}")
        return self._result(trials)

    # -- one round -------------------------------------------------------------------------------------------------

    def _round(
        self,
        run: Callable[[ExperimentConfig], Outcome | None],
        folder: Path,
        number: int,
        settings: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Run one trial of every row, but for those that have come to their end."""
        from bench.records.status import read_status

        def ends(row: str) -> set[str]:
            return {read_status(folder / job)["status"] for job in self._jobs(number, row, settings[row])}

        def settled(row: str) -> bool:
            return "failed" in ends(row) or ends(row) == {"finished"}

        for row in settings:
            self._check_recorded(folder, number, row, settings[row])
        # The first round is always asked for again: the run then refuses a folder of another budget, suite or model.
        todo = [row for row in settings if not settled(row) or (number == 0 and "failed" not in ends(row))]
        if not todo:
            return
        if run(self._round_config(number, {row: settings[row] for row in todo})) is None:
            raise BenchError("a search needs each trial's result before the next one; leave --no-wait out")
        if left := [row for row in todo if not settled(row)]:
            raise BenchError(f"the trials of {', '.join(left)} did not come to an end; the same command goes on")

    def _round_config(self, number: int, settings: Mapping[str, Mapping[str, float]]) -> ExperimentConfig:
        """The experiment of one round: a variant for each row."""
        variants = {}
        for row, values in settings.items():
            own = self.experiment.variant.get(row, {}) | {"method": self.experiment.method_of(row)}
            variants[_trial_name(row, number)] = own | dict(values)
        return _changed(self.config, {"methods": tuple(variants), "variant": variants})

    def _jobs(self, number: int, row: str, settings: Mapping[str, float]) -> list[str]:
        from bench.experiment.keys import job_keys

        return [job.name for job in job_keys(self._round_config(number, {row: settings}))]

    def _check_recorded(self, folder: Path, number: int, row: str, settings: Mapping[str, float]) -> None:
        """BenchError if the folder holds this trial with other settings: it is another command's."""
        config = self._round_config(number, {row: settings})
        [name] = config.methods
        expected = self._method_config(row, config.overrides_of(name)).model_dump(mode="json")
        for job in self._jobs(number, row, settings):
            path = folder / job / "job.json"
            if path.exists() and records.read_raw(JobRecord, path)["config"] != expected:
                raise BenchError(
                    f"{folder} holds other trials of {row} than this command asks for (other settings, ranges, seed or "
                    "results); give it a name with --name, or delete the folder"
                )

    def _judge(self, folder: Path, jobs: list[str]) -> Scored:
        from bench.records.status import read_status
        from bench.tune.objective import Scored, judge

        for job in jobs:
            status = read_status(folder / job)
            if status["status"] == "failed":
                return Scored(None, {}, reason=status["reason"])
        return judge([folder / job for job in jobs], self.request.objective)

    # -- rows ------------------------------------------------------------------------------------------------------

    def _space_of(self, row: str, ranges: Mapping[str, tuple[float, float]]) -> tuple[Dimension, ...]:
        method = plugins.load(self.experiment.method_of(row))
        overrides = self.config.overrides_of(row)
        space = space_of(row, method, self._method_config(row, overrides), ranges)
        for dimension in space:  # a range that the configuration forbids is refused before anything runs
            for end in (dimension.low, dimension.high):
                self._method_config(row, overrides | {dimension.key: end})
        return space

    def _method_config(self, row: str, overrides: Mapping[str, Any]) -> Any:
        backbone = self.config.backbone
        known = backbone in registry.table("backbones")
        scale = registry.load("backbones", backbone).scale if known else "full"
        return method_config(plugins.load(self.experiment.method_of(row)), scale, overrides)

    def _result(self, trials: list[Trial]) -> Result:
        from bench.tune.objective import MEAN
        from bench.tune.trials import best

        chosen: dict[str, dict[str, dict[str, float]]] = {"method": {}, "variant": {}}
        lost = []
        for row in self._space:
            won = best([trial for trial in trials if trial.row == row])
            if won is None:
                lost.append(row)
            else:
                chosen["variant" if row in self.experiment.variant else "method"][row] = dict(won.settings)
        tuned = Tuned(
            trials=self.request.trials,
            suite=self.suite.name,
            objective=self.request.objective or MEAN,
            seed=self.request.seed,
            budget=self.config.budget,
            backbone=self.config.backbone,
            corpus=self.config.corpus,
            subsets=self.config.subsets,
            prompts=tuple(sorted({prompt_key(text) for text in self.suite.texts()})),
            **chosen,
        )
        return Result(tuple(trials), tuned, tuple(lost))


def write(result: Result, folder: Path) -> Iterator[Path]:
    """Write the settings and all trials into ``folder``; yields the files."""
    from bench.experiment.tuned import to_toml
    from bench.tune.trials import trials_csv, trials_markdown

    texts = {
        "tuned.toml": to_toml(result.tuned),
        "trials.md": trials_markdown(result.trials, result.tuned),
        "trials.csv": trials_csv(result.trials),
    }
    for name, text in texts.items():
        records.write_bytes(folder / name, shown(text, keep="\n\t").encode())
        yield folder / name


def _rows(config: ExperimentConfig, names: tuple[str, ...]) -> tuple[str, ...]:
    """What is tuned. A pipeline trains with the settings of its stages, so these are tuned and it is not."""
    methods = tuple(dict.fromkeys(config.method_of(name) for name in config.trained))
    for row in names:
        if row not in (*methods, *config.trained):
            raise unknown("row to tune", row, (*methods, *config.trained))
    return tuple(dict.fromkeys(names)) or methods


def _trial_name(row: str, number: int) -> str:
    return f"{row}.t{number:02d}"


def _validation(config: ExperimentConfig, request: Request) -> ExperimentConfig:
    """The experiment on validation prompts and a seed of its own, without what trials have no use for."""
    if request.seed in config.seeds:
        raise BenchError(f"seed {request.seed} is one that the experiment reports; tune on another with --seed")
    if request.suite and request.prompts:
        raise BenchError("tune on the prompts of --suite or on those of --prompts, not on both")
    suite = request.suite or (config.suite if request.prompts else f"{config.suite}_validation")
    if suite not in registry.table("suites"):
        if request.suite:
            raise unknown("suite", suite, registry.table("suites"))
        raise BenchError(
            f"the suite {config.suite} has no validation prompts of its own; "
            "name a file of prompts with --prompts, or a suite that shares none with it with --suite"
        )
    changes = {
        "name": request.name or f"{config.run_name}-tune",
        "suite": suite,
        "prompts": str(Path(request.prompts).absolute()) if request.prompts else "",
        "seeds": (request.seed,),
        "evaluations": 1,
        "probes": False,
        "context": (),
        "tuned": None,
    }
    return _changed(config, changes)


def _changed(config: ExperimentConfig, changes: Mapping[str, Any]) -> ExperimentConfig:
    """The experiment with other settings, which are held against the same rules as given ones."""
    values = {name: getattr(config, name) for name in type(config).model_fields}
    changed: ExperimentConfig = validated(ExperimentConfig, values | dict(changes), "tuning: ")
    return changed


def _check_prompts(tested: set[str], texts: list[str], suite: str, validation: str) -> None:
    """BenchError if a prompt to tune on is one that the experiment reports, whatever its capitals and spaces."""
    known = {prompt_key(text) for text in tested}
    if shared := [text for text in texts if prompt_key(text) in known]:
        others = f" and {len(shared) - 1} others" if len(shared) > 1 else ""
        raise BenchError(
            f"{validation} shares prompts with {suite}, which the experiment reports: {shared[0]!r}{others}; "
            "tune on other prompts"
        )


def _check_objective(name: str, columns: list[str]) -> None:
    if name and name not in columns:
        raise unknown("objective", name, columns)
    if name and not registry.load("metrics", name).ranked:
        raise BenchError(f"{name} has no better direction, so it cannot be the objective")
