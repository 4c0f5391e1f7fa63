"""Exposure bias: what probes read of each method, pair by pair beside the base on the same pictures and noise.

See ``docs/exposure-bias.md``. Everything comes from ``probes.json`` and ``probes.jsonl``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench import records
from bench.report import figure
from bench.report.looks import BASE_LOOK, looks
from bench.report.stats import LEVEL, RESAMPLES, Interval
from bench.report.study import Evaluation, StudiedJob, Study
from bench.report.tables import head, title
from bench.report.text import Grid, listed, markdown

CAPTION = (
    "How far a model's own sampler leads it from the states that it was trained on, and what it does there. Numbers "
    "are differences to the base of the same held-out pair with the same noise; no method trained on these pairs."
)
SEED = 20260407
"""Of the resamples, so that drawing a report twice gives the same intervals."""

Floats = NDArray[np.float64]
Key = tuple[str, float]
"""Probe and guidance scale."""
Level = tuple[float, float, int]
"""Start, level of the reading, and steps between them."""


@dataclass(frozen=True)
class Readings:
    """What probes read in one evaluation: its header, and the value of each pair."""

    about: Mapping[str, Any]
    values: Mapping[Key, Mapping[Level, Mapping[int, float]]]

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
        levels: the same at each level of a reading, in order, or at the start of a path that ends at 0; of several
            readings at one level, their mean.
        pairs: how many both have.
    """

    base: float
    mean: Interval
    levels: Mapping[float, Interval]
    pairs: int


@dataclass(frozen=True)
class Line:
    """A method on a subset at a share of the budget."""

    method: str
    subset: str
    fraction: float
    seeds: int
    trained: frozenset[str]
    measures: Mapping[Key, Measure]


@dataclass(frozen=True)
class Exposure:
    """All lines, what each measure is called and is without bias, and rows that were read on other pairs or levels."""

    labels: Mapping[str, str]
    ideals: Mapping[str, float | None]
    lines: tuple[Line, ...]
    left_out: tuple[str, ...]

    @property
    def last(self) -> list[Line]:
        """Each method at the end of its budget."""
        ends = {(line.method, line.subset): line for line in sorted(self.lines, key=lambda line: line.fraction)}
        return [line for line in self.lines if ends[line.method, line.subset] is line]

    @property
    def keys(self) -> list[Key]:
        """Measures in order, the larger guidance scale last."""
        found = dict.fromkeys(key for line in self.lines for key in line.measures)
        return sorted(found, key=lambda key: ([*self.labels].index(key[0]), key[1]))


def exposure(study: Study) -> Exposure | None:
    """The study's readings beside the base's; None where there are none to compare."""
    first = next((job for job in (*study.start, *study.evaluated) if _is_base(job) and job.evaluations), None)
    if first is None:
        return None
    labels: dict[str, str] = {}
    ideals: dict[str, float | None] = {}
    lines, left_out = [], []
    for subset in study.subsets or _subsets(first.evaluations[0]):
        base = _read(first.evaluations[0], subset)
        if base is None:
            continue
        labels |= {name: probe["label"] for name, probe in base.probes.items()}
        ideals |= {name: probe["ideal"] for name, probe in base.probes.items()}
        for row in study.rows(subset):
            for fraction in study.fractions:
                jobs = [(job, found) for job in row.jobs if (at := job.at(fraction)) and (found := _read(at, subset))]
                alike = [(job, found) for job, found in jobs if found.about == base.about]
                left_out += [job.name for job, found in jobs if found.about != base.about]
                if alike:
                    trained = frozenset(name for job, _ in alike for name in _trained(job))
                    measures = _measures(base, [found for _, found in alike])
                    lines.append(Line(row.method, subset, fraction, len(alike), trained, measures))
        for job in study.evaluated:
            readings = _read(job.evaluations[0], subset) if job is not first and job.evaluations else None
            if readings and readings.about == base.about:
                lines.append(Line(job.label, subset, 1.0, 1, frozenset(), _measures(base, [readings])))
            elif readings:
                left_out.append(job.label)
    return Exposure(labels, ideals, tuple(lines), tuple(dict.fromkeys(left_out))) if lines else None


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
    values: dict[Key, dict[Level, dict[int, float]]] = {}
    for row in records.read_lines(folder / "probes.jsonl"):
        if "value" in row:
            at = values.setdefault((row["probe"], row["guidance"]), {})
            at.setdefault((row["start"], row["sigma"], row["steps"]), {})[row["pair"]] = row["value"]
    return Readings(records.read_json(folder / "probes.json"), values)


def _measures(base: Readings, found: Sequence[Readings]) -> dict[Key, Measure]:
    made = {}
    for key, levels in base.values.items():
        about = base.probes[key[0]]
        shared = {
            level: sorted(set(pairs).intersection(*(set(f.values.get(key, {}).get(level, {})) for f in found)))
            for level, pairs in levels.items()
        }
        pairs = sorted(set.intersection(*map(set, shared.values()))) if shared else []
        if not pairs:
            continue
        own = np.array([[levels[level][pair] for pair in pairs] for level in levels])
        theirs = np.mean([[[f.values[key][level][pair] for pair in pairs] for level in levels] for f in found], 0)
        difference = theirs / own - 1 if about.get("relative") else theirs - own
        sigmas = np.array([level[1] for level in levels])
        places = np.array([sigma or start for start, sigma, _ in levels])  # a path to the end is told by its start
        weights = sigmas**2 if about.get("weight") == "sigma_squared" else np.ones(len(sigmas))
        mean = (weights @ difference) / weights.sum()
        made[key] = Measure(
            base=1.0 if about.get("relative") else float((weights @ own).mean() / weights.sum()),
            mean=_interval(mean),
            levels={float(s): _interval(difference[places == s].mean(0)) for s in np.unique(places)},
            pairs=len(pairs),
        )
    return made


def _interval(values: Floats) -> Interval:
    """Mean over pairs, with a percentile bootstrap over them."""
    means = values[_draws(len(values))].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


@lru_cache
def _draws(pairs: int) -> NDArray[np.int64]:
    return np.random.default_rng(SEED).integers(0, pairs, (RESAMPLES, pairs))


# -- what is shown ---------------------------------------------------------------------------------------------------


def grids(found: Exposure) -> list[Grid]:
    """A table for each guidance scale: a row for each method at the end of its budget, a column for each measure."""
    several = len({line.subset for line in found.lines}) > 1
    tables = []
    for scale in dict.fromkeys(scale for _, scale in found.keys):
        names = [name for name, at in found.keys if at == scale]
        rows = []
        for subset in dict.fromkeys(line.subset for line in found.last):
            lines = [line for line in found.last if line.subset == subset]
            base = [next((f"{line.measures[n, scale].base:.4g}" for line in lines if (n, scale) in line.measures), "–")
                    for n in names]  # fmt: skip
            rows.append([f"base, {subset}" if several else "base", *base])
            rows += [
                [
                    f"{line.method}, {subset}" if several else line.method,
                    *(_cell(line, (name, scale)) for name in names),
                ]
                for line in lines
            ]
        tables.append(Grid([f"Guidance {scale:g}", *(found.labels[name] for name in names)], rows))
    return tables


def _cell(line: Line, key: Key) -> str:
    if key not in line.measures:
        return "–"
    mean = line.measures[key].mean
    mark = (" ↑" if mean.mean > 0 else " ↓") if mean.excludes_zero else ""
    trained = " †" if key[0] in line.trained else ""
    return f"{mean.mean:+.3g} [{mean.low:+.3g}, {mean.high:+.3g}]{mark}{trained}"


def sentences(found: Exposure) -> list[str]:
    """Of each measure that has a value without bias: which methods came nearer to it than the base, and which left it.

    Only differences whose interval excludes zero count. One that a report divides by the base's has no such sentence.
    """
    told = []
    for name, scale in found.keys:
        ideal, nearer, farther = found.ideals[name], list[str](), list[str]()
        if ideal is None:
            continue
        for line in found.last:
            measure = line.measures.get((name, scale))
            if not measure or not measure.mean.excludes_zero or measure.base == ideal:
                continue
            change = abs(measure.base + measure.mean.mean - ideal) / abs(measure.base - ideal) - 1
            sort = f"{line.method} by {abs(change):.0%}" + (" †" if name in line.trained else "")
            (nearer if change < 0 else farther).append(sort)
        what = [f"nearer are {listed(nearer)}" if nearer else "", f"farther are {listed(farther)}" if farther else ""]
        if nearer or farther:
            told.append(
                f"{found.labels[name]} at guidance {scale:g}, {ideal:g} without bias, beside the base: "
                f"{'; '.join(filter(None, what))}."
            )
    return told or ["No method moved a measure by more than its interval."]


def notes(found: Exposure) -> list[str]:
    """Sentences under the tables."""
    pairs = sorted({measure.pairs for line in found.lines for measure in line.measures.values()})
    lines = [
        f"Difference to the base, mean over levels, with its 95 % interval: a percentile bootstrap over "
        f"{'–'.join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))} held-out pairs. Seeds are averaged first, so it "
        "does not cover how much another training would differ. ↑ higher, ↓ lower: the interval excludes zero.",
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
    tables = "\n".join(grid.markdown() for grid in grids(found))
    told = "".join(f"- {markdown(line)}\n" for line in (*sentences(found), *notes(found)))
    return f"{head(study, 'Exposure bias')}{CAPTION}\n\n{tables}\n{told}"


def exposure_csv(found: Exposure) -> str:
    """Full-precision numbers at every share of the budget, one line per measure and level; ``mean`` is over levels."""
    return Grid(
        ["subset", "method", "seeds", "fraction", "probe", "guidance", "sigma", "base", "pairs", "minus_base", "low",
         "high", "trained_on"],
        [*_csv_rows(found)],
    ).csv()  # fmt: skip


def _csv_rows(found: Exposure) -> Iterator[list[str]]:
    for line in found.lines:
        for (name, scale), measure in line.measures.items():
            first = [line.subset, line.method, str(line.seeds), repr(line.fraction), name, repr(scale)]
            for sigma, at in (("mean", measure.mean), *((repr(s), i) for s, i in measure.levels.items())):
                base = repr(measure.base) if sigma == "mean" else ""
                values = [repr(at.mean), repr(at.low), repr(at.high)]
                yield [*first, sigma, base, str(measure.pairs), *values, str(int(name in line.trained))]


def exposure_figures(study: Study, found: Exposure) -> tuple[bytes, bytes]:
    """Each measure against the level at the largest guidance scale, a line for each method, as PNG and as SVG."""
    return figure.rendered(lambda: _draw(study, found))


def _draw(study: Study, found: Exposure) -> Figure:
    scale = max(at for _, at in found.keys)
    names = [name for name, at in found.keys if at == scale]
    names_of = dict.fromkeys([*study.methods, *(line.method for line in found.last)])
    drawn_as = looks(names_of)
    subsets = list(dict.fromkeys(line.subset for line in found.last))
    drawn = Figure(figsize=(4.9 * 3, 3.3 * -(-len(names) // 3) * len(subsets) + 0.9), layout="constrained")
    panels = drawn.subplots(-(-len(names) // 3) * len(subsets), 3, squeeze=False).reshape(len(subsets), -1)
    for subset, row in zip(subsets, panels, strict=True):
        for axis, name in zip(row, names, strict=False):
            axis.set_title(found.labels[name] + (f"   {subset}" if len(subsets) > 1 else ""))
            axis.axhline(0, color=BASE_LOOK.colour, linewidth=1.5, linestyle=BASE_LOOK.dashes, zorder=1)
            axis.set_xlabel("sigma")
            for line in (line for line in found.last if line.subset == subset and (name, scale) in line.measures):
                levels = {s: i for s, i in line.measures[name, scale].levels.items() if s > LOWEST or name not in STEEP}
                how, x = drawn_as[line.method], list(levels)
                axis.plot(
                    x, [i.mean for i in levels.values()], color=how.colour, marker=how.marker, linestyle=how.dashes
                )
                axis.fill_between(
                    x, [i.low for i in levels.values()], [i.high for i in levels.values()], color=how.colour, alpha=0.12
                )
        for axis in row[len(names) :]:
            axis.set_visible(False)
    figure.legend(drawn, [(method, drawn_as[method]) for method in dict.fromkeys(line.method for line in found.last)])
    key = f"Difference to the base at guidance {scale:g}, with its 95 % interval over pairs · dashed: the base"
    figure.label(drawn, f"{title(study)}: exposure bias against the level", key, study.experiment.notice)
    return drawn


LOWEST = 0.1
STEEP = ("one_step_gap", "k_step_gap")
"""Measures whose target grows as the level vanishes: below ``LOWEST`` a plot would show nothing else."""
