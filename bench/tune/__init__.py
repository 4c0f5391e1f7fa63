"""Tuning: the same number of trials for every row, on prompts and seeds that the experiment does not report.

A trial is a variant of its row, so its jobs are ordinary jobs of a run folder. Nothing else is kept: a command that is
given again asks the search the same questions, and answers them from the records of the jobs that are there. The best
trials run again on fresh seeds, and the weights of the one that wins are drawn at several scales of guidance.
How to use it, and what is fair about it: ``docs/tuning.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import plugins, records, registry
from bench.errors import BenchError, shown, unknown
from bench.experiment.config import ExperimentConfig, method_config
from bench.experiment.prompt_file import suite_of
from bench.experiment.toml import validated
from bench.experiment.tuned import Tuned, TunedRow, prompt_key
from bench.records.schema import JobRecord
from bench.tune.confirm import (
    BEST,
    Confirmation,
    candidates,
    confirmations_csv,
    confirmations_markdown,
    fresh_seeds,
    winner,
)
from bench.tune.guidance import SCALES, Scales, scales_csv, scales_markdown, scales_of, sweep_of
from bench.tune.objective import MEAN, Scored, judge
from bench.tune.space import Dimension, read_ranges, space_of
from bench.tune.trials import Planned, Trial, best, trials_csv, trials_markdown

if TYPE_CHECKING:
    from bench.experiment.run import Outcome
    from bench.tune.guidance import Sweep

    Run = Callable[[ExperimentConfig], Outcome | None]

TRIALS = 8
"""Trials per row: the present setting, three random ones and four that follow results. Ours; no source has any."""
SEED = 1000
"""Seed of the trials' jobs and of the search; experiments count theirs from 0."""

NEEDS_RESULTS = "a search needs each trial's result before the next one; leave --no-wait out"


@dataclass(frozen=True)
class Request:
    """What is tuned how, beside the experiment.

    Attributes:
        rows: methods and variants of the experiment; none: every method behind its rows, whose variants follow it.
        suite: of validation prompts; empty: the experiment's own with ``_validation`` after its name.
        prompts: file of validation prompts, for the experiment's metrics; instead of ``suite``.
        objective: a ranked metric; empty: the mean over all columns that are ranked.
        space: ``NAME.KEY=LOW:HIGH`` ranges.
        confirm: trials of each row that run again on fresh seeds beside the first; 0: the best trial wins.
        scales: of guidance, among which each row's own is chosen; none: no scale is chosen.
        name: of the run folder; empty: the experiment's with ``-tune`` after it.
    """

    rows: tuple[str, ...] = ()
    trials: int = TRIALS
    seed: int = SEED
    suite: str = ""
    prompts: str = ""
    objective: str = ""
    space: tuple[str, ...] = ()
    confirm: int = BEST
    scales: tuple[float, ...] = SCALES
    name: str = ""


@dataclass(frozen=True)
class Result:
    """The trials of all rows, round by round, and the settings that came out; rows of which all failed are ``lost``.

    ``chosen`` has the number of the trial by row.
    """

    trials: tuple[Trial, ...]
    confirmations: tuple[Confirmation, ...]
    scales: tuple[Scales, ...]
    chosen: Mapping[str, int]
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
        check_prompts(set(suite_of(config).texts()), self.suite.texts(), config.suite, self.suite.name)
        _check_objective(request.objective, [name for name, _ in self.suite.metrics()])
        self.seeds = fresh_seeds(request.seed, config.seeds)
        rows = _rows(config, request.rows)
        ranges = read_ranges(request.space, rows)
        self._space = {row: self._space_of(row, ranges.get(row, {})) for row in rows}
        # What comes last is refused first.
        _changed(self.config, {"seeds": self.seeds})
        if request.scales:
            sweep_of(self.config, [Path(self.config.run_name)], request.scales)

    def run(self, run: Run, sweep: Sweep, runs: Path, say: Callable[[str], None]) -> Result:
        """Make every trial that is not there yet, run the best again, and draw what won at each scale of guidance.

        Args:
            run: an experiment, to its end; it keeps what is finished.
            sweep: draws and scores jobs at scales of guidance; it keeps what is drawn.
            runs: where they leave their records.
            say: prints a line.
        """
        folder = runs / self.config.run_name
        trials = self._search(run, folder, say)
        confirmations = self._confirm(run, folder, trials, say)
        chosen = _chosen(trials, confirmations)
        scales = self._scales(sweep, folder, [t for t in trials if chosen.get(t.row) == t.number], say)
        return self._result(trials, confirmations, scales, chosen)

    # -- trials ----------------------------------------------------------------------------------------------------

    def _search(self, run: Run, folder: Path, say: Callable[[str], None]) -> list[Trial]:
        from bench.tune.search import Search

        searches = {row: Search(row, space, self.request.seed) for row, space in self._space.items()}
        trials = []
        for number in range(self.request.trials):
            planned = {row: Planned(row, number, search.ask()) for row, search in searches.items()}
            # The first round is always asked for again: the run then refuses a folder of another budget or suite.
            self._round(run, folder, list(planned.values()), self.request.seed, again=number == 0)
            for row, search in searches.items():
                each = planned[row]
                jobs = self._jobs(each, self.request.seed)
                scored = self._judge(folder, jobs)
                search.tell(scored.value)
                trials.append(Trial(row, number, each.settings, tuple(jobs), scored))
                shown = ", ".join(f"{key} {value:.3g}" for key, value in each.settings.items())
                outcome = f"failed: {scored.reason}" if scored.value is None else f"{scored.value:+.3f}"
                say(f"{row}, trial {number + 1} of {self.request.trials}, {shown}: {outcome}")
        return trials

    def _confirm(
        self, run: Run, folder: Path, trials: Sequence[Trial], say: Callable[[str], None]
    ) -> list[Confirmation]:
        """Run the candidates of every row on each fresh seed. All rows have as many, but for trials that failed."""
        if not self.request.confirm:
            return []
        of_rows = {row: [trial for trial in trials if trial.row == row] for row in self._space}
        again = [trial for own in of_rows.values() for trial in candidates(own, self.request.confirm)]
        values: dict[str, list[float | None]] = {trial.name: [] for trial in again}
        for seed in self.seeds if again else ():
            self._round(run, folder, again, seed)
            for trial in again:
                scored = self._judge(folder, self._jobs(trial, seed))
                values[trial.name].append(scored.value)
        made = [Confirmation(trial.row, trial.number, tuple(values[trial.name])) for trial in again]
        for each in made:
            outcome = "failed" if each.median is None else f"{each.median:+.3f}"
            say(f"{each.row}, trial {each.number + 1} again on {len(each.values)} seeds, median: {outcome}")
        return made

    def _scales(self, sweep: Sweep, folder: Path, chosen: Sequence[Trial], say: Callable[[str], None]) -> list[Scales]:
        """Draw the weights of each chosen trial at every scale."""
        from bench.report.study import read_study

        if not (self.request.scales and chosen):
            return []
        scales = sorted({*self.request.scales, self.suite.sampler.guidance_scale})
        done = sweep([folder / job for trial in chosen for job in trial.jobs], scales)
        swept = read_study([done.folder])
        # Rows of a job that failed may be there, of other weights with the same name.
        drawn = tuple(row for row in swept.swept if row.made.get("source") not in done.failed)
        swept = replace(swept, swept=drawn)
        made = []
        for trial in chosen:
            jobs = [folder / job for job in trial.jobs]
            made.append(scales_of(trial.row, jobs, swept, scales, self.request.objective))
            scale = made[-1].best
            found = "unknown, since no scale is scored in full" if scale is None else f"{scale:g}"
            say(f"{trial.row}, own scale of guidance: {found}")
        return made

    # -- one round -------------------------------------------------------------------------------------------------

    def _round(self, run: Run, folder: Path, planned: Sequence[Planned], seed: int, *, again: bool = False) -> None:
        """Run trials on one seed, but for those that have come to their end.

        Args:
            again: run also those that have, unless they failed; the run keeps them.
        """
        from bench.records.status import read_status

        def ends(each: Planned) -> set[str]:
            return {read_status(folder / job)["status"] for job in self._jobs(each, seed)}

        def settled(each: Planned) -> bool:
            return "failed" in ends(each) or ends(each) == {"finished"}

        for each in planned:
            self._check_recorded(folder, each, seed)
        todo = [each for each in planned if not settled(each) or (again and "failed" not in ends(each))]
        if not todo:
            return
        if run(self._round_config(todo, seed)) is None:
            raise BenchError(NEEDS_RESULTS)
        if left := [each.row for each in todo if not settled(each)]:
            rows = ", ".join(dict.fromkeys(left))
            raise BenchError(f"the trials of {rows} did not come to an end; the same command goes on")

    def _round_config(self, planned: Sequence[Planned], seed: int) -> ExperimentConfig:
        """The experiment of one round: a variant for each trial."""
        variants = {}
        for each in planned:
            own = self.experiment.variant.get(each.row, {}) | {"method": self.experiment.method_of(each.row)}
            variants[each.name] = own | dict(each.settings)
        return _changed(self.config, {"methods": tuple(variants), "variant": variants, "seeds": (seed,)})

    def _jobs(self, planned: Planned, seed: int) -> list[str]:
        from bench.experiment.keys import job_keys

        return [job.name for job in job_keys(self._round_config([planned], seed))]

    def _check_recorded(self, folder: Path, planned: Planned, seed: int) -> None:
        """BenchError if the folder holds this trial with other settings: it is another command's."""
        config, row = self._round_config([planned], seed), planned.row
        expected = self._method_config(row, config.overrides_of(planned.name)).model_dump(mode="json")
        for job in self._jobs(planned, seed):
            path = folder / job / "job.json"
            if path.exists() and records.read_raw(JobRecord, path)["config"] != expected:
                raise BenchError(
                    f"{folder} holds other trials of {row} than this command asks for (other settings, ranges, seed or "
                    "results); give it a name with --name, or delete the folder"
                )

    def _judge(self, folder: Path, jobs: Sequence[str]) -> Scored:
        from bench.records.status import read_status

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

    def _result(
        self,
        trials: Sequence[Trial],
        confirmations: Sequence[Confirmation],
        scales: Sequence[Scales],
        chosen: Mapping[str, int],
    ) -> Result:
        tables: dict[str, dict[str, dict[str, float]]] = {"method": {}, "variant": {}}
        for trial in trials:
            if chosen.get(trial.row) == trial.number:
                kind = "variant" if trial.row in self.experiment.variant else "method"
                tables[kind][trial.row] = dict(trial.settings)
        own_scales = {each.row: each.best for each in scales}
        rows = {}
        for row, number in chosen.items():
            medians = {c.number: c.median for c in confirmations if c.row == row}
            rows[row] = TunedRow(
                trials=self.request.trials,
                confirmed=len(medians),
                median=medians.get(number),
                default_median=medians.get(0),
                guidance_scale=own_scales.get(row),
            )
        tuned = Tuned(
            trials=self.request.trials,
            suite=self.suite.name,
            objective=self.request.objective or MEAN,
            seed=self.request.seed,
            confirmation_seeds=self.seeds if confirmations else (),
            scales=tuple(scales[0].gains) if scales else (),
            budget=self.config.budget,
            backbone=self.config.backbone,
            corpus=self.config.corpus,
            subsets=self.config.subsets,
            prompts=tuple(sorted({prompt_key(text) for text in self.suite.texts()})),
            row=rows,
            **tables,
        )
        lost = tuple(row for row in self._space if row not in chosen)
        return Result(tuple(trials), tuple(confirmations), tuple(scales), chosen, tuned, lost)


def _chosen(trials: Sequence[Trial], confirmations: Sequence[Confirmation]) -> dict[str, int]:
    """Number of the trial that won, by row: by its median, or its own score where nothing was run again."""
    chosen = {}
    for row in dict.fromkeys(trial.row for trial in trials):
        again = [each for each in confirmations if each.row == row]
        won = winner(again) if again else best([trial for trial in trials if trial.row == row])
        if won is not None:
            chosen[row] = won.number
    return chosen


def write(result: Result, folder: Path) -> Iterator[Path]:
    """Write the settings, all trials, confirmations and scales into ``folder``; yields the files."""
    from bench.experiment.tuned import to_toml

    again, seeds = result.confirmations, result.tuned.confirmation_seeds
    trials = trials_markdown(result.trials, result.tuned, result.chosen)
    texts = {
        "tuned.toml": to_toml(result.tuned),
        "trials.md": trials + confirmations_markdown(again, seeds) + scales_markdown(result.scales),
        "trials.csv": trials_csv(result.trials),
    }
    texts |= {"confirmations.csv": confirmations_csv(again, seeds)} if again else {}
    texts |= {"scales.csv": scales_csv(result.scales)} if result.scales else {}
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


def check_prompts(tested: set[str], texts: list[str], suite: str, validation: str) -> None:
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
