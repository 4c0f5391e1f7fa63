"""Exposure bias: what probes read of each method, pair by pair beside the base on the same pictures and noise.

See ``docs/exposure-bias.md``. Everything comes from ``probes.json`` and ``probes.jsonl``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import records
from bench.errors import BenchError
from bench.records.schema import ProbeLine, ProbingRecord
from bench.report.intervals import LEVEL, Interval
from bench.report.plots import share_of
from bench.report.study import Evaluation, StudiedJob, Study
from bench.report.tables import bounds, head
from bench.report.text import Grid, digits, listed, markdown

CAPTION = (
    "How far a model's own sampler leads it from the states that it was trained on, and what it does there. Numbers "
    "are differences to the base of the same held-out pair with the same noise; no method trained on these pairs."
)
SEED, RESAMPLES = 20260407, 2000
"""Of the bootstrap over pairs; fixed, so that drawing a report twice gives the same intervals."""

Floats = NDArray[np.float64]
Level = tuple[float, float, int]
"""Start, level of the reading, and steps between them."""
Part = tuple[str, str, float]
"""Probe, which pairs (held out, or of training), and guidance scale."""
ByLevel = Mapping[Level, Mapping[int, float]]
"""The value of each pair at each level."""

HELD_OUT, TRAINING, GAP = "held-out pairs", "training pairs", "held-out less training pairs"
"""What ``Key.of`` says of a probe that is read on both."""


class Key(NamedTuple):
    """What is measured: a probe at a guidance scale.

    ``of`` says which of its readings where it has several kinds: after how many steps of the sampler, on which pairs.
    """

    probe: str
    of: str
    guidance: float


@dataclass(frozen=True)
class Readings:
    """What probes read in one evaluation: its header, and the value of each pair."""

    about: Mapping[str, Any]
    values: Mapping[Part, Mapping[Level, Mapping[int, float]]]

    @property
    def probes(self) -> dict[str, Mapping[str, Any]]:
        """What the header says of each probe."""
        return {probe["name"]: probe for probe in self.about["probes"]}


@dataclass(frozen=True)
class Measure:
    """One measure of one method at one share of the budget, as a difference to the base.

    Attributes:
        base: mean of the base.
        mean: of the difference over levels, with its interval over pairs.
        levels: the same at each level of a reading, in order, or at the start of a path that ends at 0.
        pairs: how many both have.
    """

    base: float
    mean: Interval
    levels: Mapping[float, Interval]
    pairs: int


@dataclass(frozen=True)
class Line:
    """A method on a subset at a share of the budget.

    Attributes:
        fraction: of the budget, as planned; 1 of a row that was evaluated alone.
        share: what was spent by then, a mean over seeds; None: the row was not trained here.
        trained: probes that are in the method's own loss.
    """

    method: str
    subset: str
    fraction: float
    share: float | None
    seeds: int
    trained: frozenset[str]
    measures: Mapping[Key, Measure]


@dataclass(frozen=True)
class Exposure:
    """All lines, what the base's header says of each probe, and rows that were read on other pairs or levels."""

    probes: Mapping[str, Mapping[str, Any]]
    lines: tuple[Line, ...]
    left_out: tuple[str, ...]

    @property
    def last(self) -> list[Line]:
        """Each method at the end of its budget."""
        ends = {(line.method, line.subset): line for line in sorted(self.lines, key=lambda line: line.fraction)}
        return [line for line in self.lines if ends[line.method, line.subset] is line]

    @property
    def trained(self) -> list[Line]:
        """Lines of methods that were trained here, and so have a share of a budget."""
        return [line for line in self.lines if line.share is not None]

    @property
    def keys(self) -> list[Key]:
        """Measures in the order of probes, the larger guidance scale last."""
        found = dict.fromkeys(key for line in self.lines for key in line.measures)
        return sorted(found, key=lambda key: ([*self.probes].index(key.probe), key.guidance))

    @property
    def subsets(self) -> list[str]:
        """Subsets on whose held-out pairs was read."""
        return list(dict.fromkeys(line.subset for line in self.lines))

    def label(self, key: Key) -> str:
        """What a measure is called, without its guidance scale."""
        return ", ".join(filter(None, (self.probes[key.probe]["label"], key.of)))

    def ideal(self, key: Key) -> float | None:
        """Its value without bias; None: it has none, or none but the base's own."""
        about = self.probes[key.probe]
        return None if about.get("relative") or about["ideal"] is None else float(about["ideal"])


def exposure(study: Study) -> Exposure | None:
    """The study's readings beside the base's; None where there are none.

    It has no lines where every row was read on other pairs, levels or versions than the base.
    """
    first = next((job for job in (*study.start, *study.evaluated) if _is_base(job) and job.evaluations), None)
    if first is None:
        return None
    probes: dict[str, Mapping[str, Any]] = {}
    lines, left_out = [], []
    for subset in study.subsets or _subsets(first.evaluations[0]):
        base = _read(first.evaluations[0], subset)
        if base is None:
            continue
        probes |= base.probes
        for row in study.rows(subset):
            for fraction in study.fractions:
                jobs = [(job, found) for job in row.jobs if (at := job.at(fraction)) and (found := _read(at, subset))]
                alike = [(job, found) for job, found in jobs if found.about == base.about]
                left_out += [job.name for job, found in jobs if found.about != base.about]
                if alike:
                    trained = frozenset(name for job, _ in alike for name in _trained(job))
                    measures = _measures(base, [found for _, found in alike])
                    share = share_of(study, row, fraction)
                    lines.append(Line(row.method, subset, fraction, share, len(alike), trained, measures))
        for job in study.evaluated:
            readings = _read(job.evaluations[0], subset) if job is not first and job.evaluations else None
            if readings and readings.about == base.about:
                lines.append(Line(job.label, subset, 1.0, None, 1, frozenset(), _measures(base, [readings])))
            elif readings:
                left_out.append(job.label)
    lines = [line for line in lines if line.measures]  # none where no pair has a value in both
    return Exposure(probes, tuple(lines), tuple(dict.fromkeys(left_out))) if lines or left_out else None


def _is_base(job: StudiedJob) -> bool:
    """Whether others are held against a row: the base of a run, or a whole pipeline that was evaluated."""
    return job.name == records.BASE or job.made.get("kind") == "pipeline"


def _subsets(evaluation: Evaluation) -> list[str]:
    """Subsets on whose held-out pairs an evaluated row was read."""
    found = evaluation.folder.glob(f"{records.PROBES}/*/probes.json") if evaluation.folder else ()
    return sorted(path.parent.name for path in found)


def _trained(job: StudiedJob) -> Sequence[str]:
    return job.record.trained_probes if job.record else ()


def _read(evaluation: Evaluation, subset: str) -> Readings | None:
    if evaluation.folder is None:
        return None
    places = (evaluation.folder / records.PROBES / subset, evaluation.folder)
    folder = next((place for place in places if (place / "probes.json").is_file()), None)
    return _readings(folder) if folder else None


def _readings(folder: Path) -> Readings:
    """BenchError where one of the two files is damaged, or where they do not belong together."""
    path, values = folder / "probes.jsonl", dict[Part, dict[Level, dict[int, float]]]()
    found = Readings(records.read_raw(ProbingRecord, folder / "probes.json"), values)
    probes, seen = found.probes, set[str]()
    for row in records.read_rows(ProbeLine, path):
        seen.add(row["probe"])
        if row.get("values") is not None:
            read = {pair: value for pair, value in zip(row["pairs"], row["values"], strict=True) if value is not None}
            at = values.setdefault((row["probe"], row["part"], row["guidance"]), {})
            at.setdefault((row["start"], row["sigma"], row["steps"]), {}).update(read)
    if (strange := sorted(seen - probes.keys())) or (probes and not seen):
        what = f"does not name the probe {strange[0]}" if strange else "names probes, and there are no readings of them"
        raise BenchError(
            f"{path} does not fit the probes.json beside it, which {what}; restore both, or delete both: reports then "
            "do without these readings"
        )
    return found


def _measures(base: Readings, found: Sequence[Readings]) -> dict[Key, Measure]:
    made = {}
    for part, every in base.values.items():
        name, pairs, scale = part
        if pairs == "training":
            continue
        trained = (name, "training", scale)
        about, known = base.probes[name], base.values.get(trained)
        for of, levels in _kinds(every).items():
            of_kind = {level: every[level] for level in levels}
            difference = _difference(about, of_kind, [readings.values.get(part, {}) for readings in found])
            if difference is None:
                continue
            made[Key(name, HELD_OUT if known else of, scale)] = difference.measure()
            theirs = [readings.values.get(trained, {}) for readings in found]
            if known and (fit := _difference(about, known, theirs)):
                made[Key(name, TRAINING, scale)] = fit.measure()
                made[Key(name, GAP, scale)] = difference.less(fit)
    return made


def _kinds(levels: Iterable[Level]) -> dict[str, list[Level]]:
    """Levels of a probe by how many steps lead to them, in words. Each kind is a line of its own.

    Paths to the end differ in steps because they differ in starts. They are one kind, unless a start has several.
    """
    last = Counter(start for start, sigma, _ in levels if sigma == 0)
    alike = all(count == 1 for count in last.values())
    kinds: dict[int, list[Level]] = {}
    for start, sigma, steps in levels:
        kinds.setdefault(0 if sigma == 0 and alike else steps, []).append((start, sigma, steps))
    if len(kinds) == 1:
        return {"": next(iter(kinds.values()))}
    return {f"{steps} step" + "s" * (steps != 1): of_kind for steps, of_kind in kinds.items()}


@dataclass(frozen=True)
class _Difference:
    """A method less the base, pair by pair.

    Attributes:
        values: (levels, pairs).
        base: of the base at each level, a mean over pairs.
        places: the level of each reading, or the start of a path that ends at 0.
        weights: of levels in a mean over them; their sum is 1.
    """

    values: Floats
    base: Floats
    places: tuple[float, ...]
    weights: Floats

    def measure(self) -> Measure:
        """With intervals over pairs."""
        return self._measure(_intervals(self._of_mean_and_levels), float(self.weights @ self.base))

    def less(self, other: _Difference) -> Measure:
        """This less another one, of other pairs at the same levels, which are drawn independently."""
        found = _intervals(self._of_mean_and_levels, other._of_mean_and_levels)
        return self._measure(found, float(self.weights @ (self.base - other.base)))

    @property
    def _of_mean_and_levels(self) -> Floats:
        """(1 + levels, pairs): the mean over levels comes first."""
        return np.vstack([self.weights @ self.values, self.values])

    def _measure(self, intervals: Sequence[Interval], base: float) -> Measure:
        mean, *of_levels = intervals
        levels = dict(sorted(zip(self.places, of_levels, strict=True), key=lambda level: level[0]))
        return Measure(base=base, mean=mean, levels=levels, pairs=self.values.shape[1])


def _difference(about: Mapping[str, Any], base: ByLevel, others: Sequence[ByLevel]) -> _Difference | None:
    """A method's seeds beside the base; None where no pair has every level in all of them."""
    shared = [set(pairs).intersection(*(other.get(level, {}) for other in others)) for level, pairs in base.items()]
    pairs = sorted(set.intersection(*shared))
    if not pairs:
        return None
    own = np.array([[values[pair] for pair in pairs] for values in base.values()])
    theirs = np.mean([[[other[level][pair] for pair in pairs] for level in base] for other in others], 0)
    relative = bool(about.get("relative"))
    sigmas = np.array([level[1] for level in base])
    weights = sigmas**2 if about.get("weight") == "sigma_squared" else np.ones(len(sigmas))
    return _Difference(
        values=theirs / own - 1 if relative else theirs - own,
        base=np.ones(len(own)) if relative else own.mean(1),
        places=tuple(sigma or start for start, sigma, _ in base),
        weights=weights / weights.sum(),
    )


def _intervals(values: Floats, others: Floats | None = None) -> list[Interval]:
    """Of each line of (lines, pairs), the mean over pairs less that of others. A percentile bootstrap is over both."""
    mean, means = values.mean(1), values @ _shares(values.shape[1], 0)
    if others is not None:
        mean, means = mean - others.mean(1), means - others @ _shares(others.shape[1], 1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    return [Interval(*map(float, line)) for line in zip(mean, low, high, strict=True)]


@lru_cache
def _shares(pairs: int, stream: int) -> Floats:
    """(pairs, RESAMPLES): the share of each pair in each resample."""
    drawn = np.random.default_rng([SEED, stream]).integers(0, pairs, (RESAMPLES, pairs))
    return np.stack([(drawn == pair).mean(1) for pair in range(pairs)])


# -- what is shown ---------------------------------------------------------------------------------------------------


def grids(found: Exposure) -> list[Grid]:
    """A table for each guidance scale and subset: a row for each measure, a column for each method at its end."""
    tables = []
    for scale in dict.fromkeys(sorted(key.guidance for key in found.keys)):
        for subset in found.subsets:
            lines = [line for line in found.last if line.subset == subset]
            rows = [
                [found.label(key), _base(lines, key), *(_cell(line, key) for line in lines)]
                for key in found.keys
                if key.guidance == scale
            ]
            heading = f"Guidance {scale:g}" + (f", {subset}" if len(found.subsets) > 1 else "")
            tables.append(Grid([heading, "base", *(line.method for line in lines)], rows))
    return tables


def _base(lines: Sequence[Line], key: Key) -> str:
    return next((f"{line.measures[key].base:.4g}" for line in lines if key in line.measures), "–")


def _cell(line: Line, key: Key) -> str:
    if key not in line.measures:
        return "–"
    mean = line.measures[key].mean
    mark = (" ↑" if mean.mean > 0 else " ↓") if mean.excludes_zero else ""
    trained = " †" if key.probe in line.trained else ""
    return f"{mean.mean:+.3g} [{mean.low:+.3g}, {mean.high:+.3g}]{mark}{trained}"


def sentences(found: Exposure) -> list[str]:
    """Who came nearer to no bias than the base and by how much: in one sentence, and then for each measure.

    Only differences whose interval excludes zero count.
    """
    if not found.lines:
        return ["No row can be compared with the base."]
    told = []
    for key in found.keys:
        ideal, nearer, farther = found.ideal(key), list[str](), list[str]()
        for line in found.last:
            if (change := _change(found, line, key)) is not None:
                sort = f"{_name(found, line)} {_by(line, key, change)}" + (" †" if key.probe in line.trained else "")
                (nearer if change < 0 else farther).append(sort)
        what = [f"nearer are {listed(nearer)}" if nearer else "", f"farther are {listed(farther)}" if farther else ""]
        if nearer or farther:
            told.append(
                f"{found.label(key)} at guidance {key.guidance:g}, {ideal:g} without bias, beside the base: "
                f"{'; '.join(filter(None, what))}."
            )
    return [_summary(found), *told] if told else ["No method moved a measure by more than its interval."]


def _summary(found: Exposure) -> str:
    """Of each method: in how many measures it came nearer and went away, and the median change over all that moved."""
    parts = []
    for line in found.last:
        keys = [key for key in found.keys if found.ideal(key) is not None and key.probe not in line.trained]
        moved = [change for key in keys if (change := _change(found, line, key)) is not None]
        if moved:
            nearer, middle = sum(change < 0 for change in moved), float(np.median(moved))
            parts.append(
                f"{_name(found, line)} is nearer in {nearer} and farther in {len(moved) - nearer} of {len(keys)} "
                f"measures (median of their changes {middle:+.0%})"
            )
    if not parts:
        return "No method moved a measure that it does not train on by more than its interval."
    return f"Distance to no bias beside the base, without a method's own measures (†): {listed(parts)}."


def _name(found: Exposure, line: Line) -> str:
    return f"{line.method} on {line.subset}" if len(found.subsets) > 1 else line.method


def _by(line: Line, key: Key, change: float) -> str:
    """How much: in per cent, or from where to where if the base is so near to no bias that per cent mean little."""
    measure = line.measures[key]
    if change > 1:
        return f"from {measure.base:.2g} to {measure.base + measure.mean.mean:.2g}"
    return f"by {abs(change):.0%}"


def _change(found: Exposure, line: Line, key: Key) -> float | None:
    """Distance to the value without bias over the base's, less 1; None where it is not told from no difference."""
    measure, ideal = line.measures.get(key), found.ideal(key)
    if ideal is None or measure is None or not measure.mean.excludes_zero or measure.base == ideal:
        return None
    return abs(measure.base + measure.mean.mean - ideal) / abs(measure.base - ideal) - 1


def notes(found: Exposure) -> list[str]:
    """Sentences under the tables."""
    pairs = sorted({measure.pairs for line in found.lines for measure in line.measures.values()})
    lines = []
    if pairs:
        lines = [
            "Difference to the base, mean over levels, with its 95 % interval: a percentile bootstrap over "
            f"{'–'.join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))} held-out pairs. Seeds are averaged first, so "
            "it does not cover how much another training would differ. ↑ higher, ↓ lower: the interval excludes zero.",
            "Gaps are weighted by the square of the level in a mean over levels; near 0 they only say that "
            "their target grows.",
        ]
    if any(line.trained for line in found.last):
        lines.append("† The measure is in the method's own loss.")
    if found.left_out:
        lines.append(f"Read on other pairs, levels or versions than the base, and left out: {listed(found.left_out)}.")
    return lines


def exposure_markdown(study: Study, found: Exposure) -> str:
    """Tables with their caption, sentences and notes."""
    tables = "".join(f"{grid.markdown()}\n" for grid in grids(found))
    told = "".join(f"- {markdown(line)}\n" for line in (*sentences(found), *notes(found)))
    return f"{head(study, 'Exposure bias')}{CAPTION}\n\n{tables}{told}"


def exposure_csv(found: Exposure) -> str:
    """Numbers in seven digits at every share of the budget, one line per measure and level; ``mean`` is over levels."""
    return Grid(
        ["subset", "method", "seeds", "fraction", "probe", "of", "guidance", "sigma", "base", "pairs", "minus_base",
         "low", "high", "trained_on"],
        [*_csv_rows(found)],
    ).csv()  # fmt: skip


def _csv_rows(found: Exposure) -> Iterator[list[str]]:
    for line in found.lines:
        for key, measure in line.measures.items():
            first = [line.subset, line.method, str(line.seeds), repr(line.fraction)]
            first += [key.probe, key.of, repr(key.guidance)]
            for sigma, at in (("mean", measure.mean), *((repr(s), i) for s, i in measure.levels.items())):
                base = digits(measure.base) if sigma == "mean" else ""
                yield [*first, sigma, base, str(measure.pairs), *bounds(at), str(int(key.probe in line.trained))]
