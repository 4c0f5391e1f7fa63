"""The report's tables: main results, and what each job spent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Literal

from bench.records import BASE, CONTEXT, EVALUATED, dumps
from bench.records.schema import MetricRecord
from bench.report import conditions, gaps
from bench.report.detectable import detectable
from bench.report.intervals import POWER, Interval
from bench.report.stats import UNKNOWN, Cell, Difference, Trainings, clear_best, family, make_cell, trainings_of
from bench.report.study import Row, StudiedJob, Study
from bench.report.text import Grid, count, digits, duration, listed, markdown, memory, percent, scientific, tex

FULL_SHARE = 0.99
"""A row that used less of its budget than this is flagged: it was not compared at equal compute."""

WIDEST = 8
"""Metrics that one table holds; more of them are spread over several."""


@dataclass(frozen=True)
class MainCell:
    """A metric of a row. ``to_base`` is the paired difference; ``trained_on`` keeps it out of the ranking."""

    metric: MetricRecord
    cell: Cell
    to_base: Difference | None
    trained_on: bool
    best: bool = False

    @property
    def judged(self) -> bool:
        """Whether its difference may be called better or worse: it is known how much trainings differ."""
        return self.cell.estimate is None or self.cell.estimate.judged


@dataclass(frozen=True)
class MainRow:
    """A row of the main table: the base, another model, given weights or images, or the pooled seeds of one method.

    Only a method's row has a ``share``; the others spent nothing. ``settings`` says how a context or evaluated row was
    made.
    """

    method: str
    subset: str
    seeds: int
    share: float | None
    cells: list[MainCell]
    kind: Literal["base", "context", "evaluated", "method"] = "method"
    settings: str = ""

    @property
    def name(self) -> str:
        """The method, with the subset that it was trained on."""
        return f"{self.method} on {self.subset}" if self.subset else self.method

    @cached_property
    def short(self) -> bool:
        """Whether the row was compared at less than equal compute."""
        return self.share is not None and self.share < FULL_SHARE

    @property
    def unknown(self) -> list[str]:
        """Labels of metrics in which nobody knows how much another training would differ."""
        return [c.metric.label for c in self.cells if not c.judged]

    @property
    def from_file(self) -> bool:
        """Whether the suite's noise file says how much another training would differ."""
        return any(c.cell.estimate is not None and c.cell.estimate.seeds.source == "file" for c in self.cells)

    @property
    def seeds_text(self) -> str:
        """How many trainings the row pools; only a method has any."""
        return str(self.seeds) if self.kind == "method" else "–"

    @property
    def share_text(self) -> str:
        """The share of the budget it used, flagged where that is short."""
        return "–" if self.share is None else f"{percent(self.share)}{' ‡' if self.short else ''}"


@dataclass(frozen=True)
class Section:
    """The main table of one subset, in ``blocks`` between rules."""

    subset: str
    about: str
    blocks: list[list[MainRow]]

    @property
    def rows(self) -> list[MainRow]:
        """The rows of all blocks."""
        return [row for block in self.blocks for row in block]


def main_sections(study: Study) -> list[Section]:
    """One section for each subset: the base, then rows that compete with nobody, then the methods.

    Where nothing was trained, evaluated rows are ranked with the base instead, if they were sampled as the suite says,
    and among themselves where they read other numbers of T5 tokens.
    """
    known = trainings_of(study, study.trained_until)
    base = [_untrained_row(study, job, BASE, known) for job in study.start]
    context = [_untrained_row(study, job, CONTEXT) for job in study.context]
    evaluated = _compared(base, [_untrained_row(study, job, EVALUATED) for job in study.evaluated])
    if not study.jobs:
        rows, groups = [*base, *evaluated], _competing(study)
        competing = [_mark_best([rows[i] for i in group]) for group in groups]
        other = [row for i, row in enumerate(rows) if not any(i in group for group in groups)]
        return [Section("", "", [block for block in (*competing, other, context) if block])]
    sections: list[Section] = []
    for subset in study.subsets:
        methods = [_method_row(study, row, known) for row in study.rows(subset)]
        ranked = _mark_best([*base, *_compared(base, methods)])
        beside = [block for block in (context, evaluated) if block]
        blocks = [ranked[: len(base)], *beside, ranked[len(base) :]] if beside else [ranked]
        sections.append(Section(subset, _about_subset(study, subset), blocks))
    return sections


def _untrained_row(
    study: Study,
    job: StudiedJob,
    kind: Literal["base", "context", "evaluated"],
    known: Mapping[str, Trainings] | None = None,
) -> MainRow:
    """A row that spent nothing."""
    row = Row(BASE if kind == BASE else job.label, "", (job,))
    recorded = (job.record.context or job.record.evaluated if job.record else None) or {}
    return MainRow(row.method, "", 1, None, _cells(study, row, 0.0, known), kind, settings_text(recorded))


def _compared(base: Sequence[MainRow], rows: Sequence[MainRow]) -> list[MainRow]:
    """Rows with their paired differences to the base: of each metric, one family."""
    made = [list(row.cells) for row in rows]
    for start in base:
        for number, column in enumerate(start.cells):
            found = family(column.cell.estimate, [cells[number].cell.estimate for cells in made])
            for cells, to_base in zip(made, found, strict=True):
                cells[number] = replace(cells[number], to_base=to_base)
    return [replace(row, cells=cells) for row, cells in zip(rows, made, strict=True)]


def _competing(study: Study) -> list[list[int]]:
    """Which of the base and the evaluated rows are ranked together, by number; the others are not ranked."""
    groups: dict[int | None, list[int]] = {}
    for number, job in enumerate((*study.start, *study.evaluated)):
        if job is study.base or _sampled_by_the_suite(study, job):
            groups.setdefault(study.tokens_of(job), []).append(number)
    if len(groups.keys() - {None}) > 1:
        return [*groups.values()]
    return [together] if (together := sorted(chain.from_iterable(groups.values()))) else []


def _sampled_by_the_suite(study: Study, job: StudiedJob) -> bool:
    """Whether an evaluated row's own sampler agrees with the suite's in all it names; images must name one."""
    made = job.made
    if job.sampled_elsewhere:
        return False
    named = made["sampler"] if isinstance(made.get("sampler"), dict) else made
    suite = study.experiment.suite.sampler.model_dump()
    return all(named[key] is None or named[key] == value for key, value in suite.items() if key in named)


def settings_text(values: Mapping[str, Any]) -> str:
    """Recorded settings as ``steps 28, guidance scale 3.5``; what is not set is left out and hashes are cut to 12."""
    nested = {key: value for key, value in values.items() if isinstance(value, dict)}
    flat = {key: value for key, value in values.items() if key not in nested}
    for inner in nested.values():
        flat |= inner
    known = {key.replace("_", " "): value for key, value in flat.items() if value is not None}
    texts = {key: value if isinstance(value, str) else dumps(value) for key, value in known.items()}
    hashed = re.compile("[0-9a-f]{40,}")
    return ", ".join(f"{key} {text[:12] if hashed.fullmatch(text) else text}" for key, text in texts.items())


def _method_row(study: Study, row: Row, known: Mapping[str, Trainings]) -> MainRow:
    # Pooled seeds are only as comparable as the one that used least.
    share = min(study.share(job.spent) for job in row.jobs)
    return MainRow(row.method, row.subset, len(row.jobs), share, _cells(study, row, study.fractions[-1], known))


def _cells(study: Study, row: Row, fraction: float, known: Mapping[str, Trainings] | None = None) -> list[MainCell]:
    return [
        MainCell(
            metric,
            make_cell(row.jobs, fraction, metric, (known or {}).get(metric.name, UNKNOWN)),
            None,
            metric.name in row.trained_on,
        )
        for metric in study.metrics
    ]


def competes(row: MainRow, c: MainCell) -> bool:
    """Whether a cell may be the best: its seed variance is known, its compute equal, and the metric was not trained on.

    The diversity of a base that nothing was trained from is where training starts, and no merit of the base.
    """
    if c.trained_on or row.short or not (c.metric.ranked and c.judged):
        return False
    return row.kind != BASE or not c.metric.per_prompt


def _mark_best(rows: list[MainRow]) -> list[MainRow]:
    """The clear best of each column, among the rows that compare. None is, while one of them has no score."""
    winners = []
    for column in zip(*(row.cells for row in rows), strict=True):
        rivals = [(i, c.cell.estimate) for i, (row, c) in enumerate(zip(rows, column, strict=True)) if competes(row, c)]
        best = clear_best([estimate for _, estimate in rivals], column[0].metric.higher_is_better)
        winners.append(None if best is None else rivals[best][0])
    return [
        replace(row, cells=[replace(c, best=winners[j] == i) for j, c in enumerate(row.cells)])
        for i, row in enumerate(rows)
    ]


def _about_subset(study: Study, subset: str) -> str:
    """Size and content hash of the subset, as its jobs recorded them."""
    known = [job.record for job in study.jobs if job.subset == subset and job.record]
    counts = {f"{r.subset_count:,} pairs" for r in known if r.subset_count is not None}
    hashes = {r.subset_hash[:12] for r in known if r.subset_hash}
    return ", ".join([*sorted(counts), *sorted(hashes)])


def notes(study: Study, sections: Sequence[Section]) -> list[str]:
    """Sentences under the main table; marks that do not occur are not explained."""
    rows = [row for section in sections for row in section.rows]
    lines = [
        *interval_notes(study, rows),
        "main_results.csv also has intervals for prompts like these: there the prompts vary too.",
    ]
    if sight := could_have_seen(study, sections):
        lines.append(sight)
    if any(c.to_base and c.to_base.family > 1 for row in rows for c in row.cells):
        lines.append(
            "A difference to the base belongs to a family: all rows of its table minus the base, in one metric. The "
            "intervals of a family hold together in 95 % of cases."
        )
    lines.append(
        f"Bold marks the best of a column{', the base included,' if study.start else ''} only where the intervals of "
        "its paired differences to all others exclude zero together."
    )
    if any(competes(row, c) and c.cell.estimate is None for row in rows for c in row.cells):
        lines.append("A column in which a row that could be the best has no score yet has no best.")
    if study.start and any(m.per_prompt for m in study.metrics):
        lines.append("The base is never the best in diversity: training starts there.")
    if any(c.trained_on for row in rows for c in row.cells):
        lines.append(TRAINED_ON)
    unranked = [m.label for m in study.metrics if not m.ranked]
    if unranked:
        lines.append(
            f"{listed(unranked)}: neither direction is better, so nothing is ranked; what tells is the difference to "
            "the base."
        )
    lines += gap_notes(rows)
    evaluated = {row.method: row.settings for row in rows if row.kind == EVALUATED}
    if evaluated:
        named = "; ".join(f"{name} ({settings})" if settings else name for name, settings in evaluated.items())
        about = "between the rules and not ranked, since no budget bound it" if study.jobs else "as it was given"
        lines.append(f"Evaluated on the same suite, {about}: {named}.")
    lines += _chosen_notes(study)
    if not study.jobs:
        lines += _ranking_notes(study)
    context = {row.method: row.settings for row in rows if row.kind == CONTEXT}
    if context:
        named = "; ".join(f"{name} ({settings})" if settings else name for name, settings in context.items())
        lines.append(
            f"For context, between the rules, and neither trained nor ranked: {named}. Each is another model with "
            "its own sampler settings."
        )
    return lines


def _chosen_notes(study: Study) -> Iterator[str]:
    """A sentence on each remedy whose scale was chosen, with all that was tried."""
    for job in study.evaluated:
        if chosen := job.made.get("chosen"):
            tried = ", ".join(f"{each['scale']:g}: {each['gain']:+.3f}" for each in chosen["tried"])
            yield (
                f"{job.label}: the scale was chosen on {chosen['suite']} v{chosen['version']} by the "
                f"{chosen['objective']}, as a gain beside none in standard deviations of images ({tried})."
            )


def could_have_seen(study: Study, sections: Sequence[Section]) -> str:
    """What the smallest difference of two rows is that each metric tells, over all sections; empty for none."""
    texts = []
    for number, metric in enumerate(study.metrics):
        found = []
        for section in sections:
            methods = [row for row in section.rows if row.kind == "method"]
            rows = methods if len(methods) > 1 else [row for row in section.rows if row.kind != CONTEXT]
            smallest = detectable([row.cells[number].cell.estimate for row in rows])
            found += [smallest] if smallest is not None else []
        texts += [f"{metric.label} {metric.text(max(found))}"] if found else []
    if not texts:
        return ""
    return (
        f"What this run could have seen, with {POWER:.0%} power on this prompt list: a difference of two rows of "
        f"{', '.join(texts)}. A smaller one may be there unseen."
    )


def _ranking_notes(study: Study) -> list[str]:
    """Sentences on which rows of an evaluation are ranked apart, or not at all; there is no ranking of one row."""
    jobs, groups, lines = (*study.start, *study.evaluated), _competing(study), []
    labels = [BASE if job is study.base else job.label for job in jobs]
    if len(groups) > 1:
        groups_text = [f"{listed([labels[i] for i in g])} ({study.tokens_of(jobs[g[0]]) or 'unknown'})" for g in groups]
        lines.append(f"Rows that read different numbers of T5 tokens are ranked apart: {'; '.join(groups_text)}.")
    other = [label for i, label in enumerate(labels) if not any(i in group for group in groups)]
    if other and len(jobs) > 1:
        lines.append(f"Not sampled as the suite says, or not saying how, and so not ranked: {listed(other)}.")
    return lines


def interval_notes(study: Study, rows: Sequence[MainRow]) -> list[str]:
    """Sentences on what the intervals of ``rows`` cover."""
    grouped = [m.label for m in study.metrics if m.grouped]
    varies = "the prompts are fixed, and noise and trainings vary"
    if all(row.kind != "method" for row in rows):
        varies = "prompts and weights are fixed, and noise varies. What another training would give is not in it"
    lines = [f"Each cell is the mean with its 95 % interval for this prompt list: {varies}."]
    if grouped:
        lines.append(f"{listed(grouped)}: the mean of the groups' means.")
    once = [m.label for number, m in enumerate(study.metrics) if _once([row.cells[number] for row in rows])]
    if once:
        lines.append(
            f"{listed(once)}: each prompt has one score, so noise cannot be told from prompts, and both count as "
            "varying."
        )
    return [*lines, *_seed_notes(study, rows)]


def _once(column: Sequence[MainCell]) -> bool:
    """Whether all estimates of a metric have one score a prompt, and no noise file says what noise adds."""
    known = [c.cell.estimate for c in column if c.cell.estimate]
    if not known or any(int(e.scores.repeats.max()) > 1 for e in known):
        return False
    return all(e.file is None or e.file.row_noise_share is None for e in known)


def _seed_notes(study: Study, rows: Sequence[MainRow]) -> list[str]:
    """Where it is known from how much trainings differ, and for which rows it is not."""
    lines, file = [], study.noise
    if any(row.seeds > 1 for row in rows):
        lines.append(
            "How much trainings differ is estimated from the seeds of all rows together: a row's own estimate is drawn "
            "towards theirs (docs/statistics.md)."
        )
    from_file = dict.fromkeys(row.name for row in rows if row.from_file)
    if file and from_file:
        lines.append(
            f"{listed([*from_file])}: one seed. How much a second training would differ comes from the noise file of "
            f"the suite {file.suite} v{file.suite_version}, measured on {file.about}. So one seed can tell methods "
            "apart. It trusts the file: where a method's trainings differ more than those, a verdict comes too easily."
        )
    unknown: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.unknown:
            metrics = "" if len(row.unknown) == len(row.cells) else f" in {listed(row.unknown)}"
            unknown.setdefault(metrics, {})[row.name] = None
    for metrics, names in unknown.items():
        lines.append(
            f"Seed variance unknown for {listed([*names])}{metrics}, of one seed. What it can tell is how the model "
            "that was trained scores on these prompts with other noise: the interval is of that. What it cannot tell "
            "is how much a second training would differ, and so which method is better. Such a cell is not ranked, and "
            "no difference of it is called better or worse. More seeds tell, e.g. the same command with --seeds 0,1,2; "
            "or a noise file does (`bench report --noise`)."
        )
    return lines


TRAINED_ON = (
    "† The method was trained on this metric as its reward, or on preference pairs that encode what the metric was "
    "fitted to. The cell is not ranked."
)


def gap_notes(rows: Sequence[MainRow]) -> list[str]:
    """Sentences on what ``rows`` lack: compute, or scores, and why."""
    lines = []
    if any(row.short for row in rows):
        less = f"‡ Used less than {percent(FULL_SHARE)} of the budget"
        lines.append(f"{less}, so it is not compared at equal compute, and not ranked.")
    if any(c.cell.estimate is None for row in rows for c in row.cells):
        lines.append("missing n/N, failed n/N: only n of the N images owed are scored, so no mean is taken.")
    return lines + gaps.lines((row.name, c.metric.label, c.cell) for row in rows for c in row.cells)


def cell_text(c: MainCell) -> str:
    """``value [low, high] n/N``, or what is missing, with † where the method was trained on the metric.

    What is not ranked is read by its difference to the base, which follows.
    """
    estimate, mark = c.cell.estimate, " †" if c.trained_on else ""
    if estimate is None:
        return c.cell.gap + mark
    value = f"**{c.metric.text(estimate.mean)}**" if c.best else c.metric.text(estimate.mean)
    return f"{value} {interval_text(c.metric, estimate)} {c.cell.counts}{_drift(c)}{mark}"


def _drift(c: MainCell) -> str:
    return "" if c.metric.ranked or c.to_base is None else f", {difference_text(c.metric, c.to_base)} to base"


def interval_text(metric: MetricRecord, interval: Interval, sign: str = "") -> str:
    """``[low, high]`` with the metric's precision."""
    if not interval.known:
        return "[unknown]"
    return f"[{metric.text(interval.low, sign)}, {metric.text(interval.high, sign)}]"


def difference_text(metric: MetricRecord, difference: Interval) -> str:
    """``+difference [low, high]`` with the metric's precision and always a sign."""
    return f"{metric.text(difference.mean, '+')} {interval_text(metric, difference, '+')}"


def verdict(metric: MetricRecord, difference: Interval) -> str:
    """▲ better, ▼ worse where the interval excludes zero; nothing of what is not ranked."""
    if not (metric.ranked and difference.excludes_zero):
        return ""
    return " ▲" if (difference.mean > 0) == metric.higher_is_better else " ▼"


def main_markdown(study: Study, sections: Sequence[Section]) -> str:
    """The main table of each subset, with its notes."""
    parts = [f"{head(study, 'Main results')}{markdown(summary(study))}\n"]
    for section in sections:
        grids = [_grid(study, section, part).markdown() for part in columns(study)]
        parts.append(f"\n{_heading(section)}" + "\n".join(grids))
    parts.append("\n" + "\n".join(f"- {markdown(line)}" for line in notes(study, sections)) + "\n")
    return "".join([*parts, "\n## Conditions\n\n", conditions.grid(study).markdown()])


def columns(study: Study) -> list[slice]:
    """Which metrics stand in each of the tables that a section's rows are spread over, evenly."""
    number = len(study.metrics)
    size = -(-number // -(-number // WIDEST))
    return [slice(start, start + size) for start in range(0, number, size)]


def _grid(study: Study, section: Section, part: slice) -> Grid:
    headers = [*row_headers(study), *(m.heading for m in study.metrics[part])]
    lines: list[list[str]] = []
    for block in section.blocks:
        lines += [["———"] * len(headers)] if lines else []
        lines += [[*row_texts(study, row), *map(cell_text, row.cells[part])] for row in block]
    return Grid(headers, lines)


def row_headers(study: Study) -> list[str]:
    """Headings before the metrics; where nothing was trained there are neither seeds nor a budget."""
    return ["Method", "Seeds", "Budget used"] if study.jobs else ["Model"]


def row_texts(study: Study, row: MainRow) -> list[str]:
    """What a row says under ``row_headers``."""
    return [row.method, row.seeds_text, row.share_text] if study.jobs else [row.method]


def head(study: Study, subject: str) -> str:
    """The notice, which every file shows first, and a title."""
    return f"{markdown(study.experiment.notice)}\n\n# {subject}: {markdown(title(study))}\n\n"


def _heading(section: Section) -> str:
    about = f" ({section.about})" if section.about else ""
    return f"## Subset: {section.subset}{about}\n\n" if section.subset else ""


def main_csv(study: Study, sections: Sequence[Section]) -> str:
    """Full-precision numbers, one line per row of the main table; what is not there is left empty."""
    numbers = ["mean", "low", "high", "n", "N", "minus_base", "minus_base_low", "minus_base_high", "trained_on", "best"]
    numbers += ["like_low", "like_high", "minus_base_like_low", "minus_base_like_high", "seed_variance"]
    headers = ["backbone", "corpus", "subset", "kind", "method", "seeds", "share_of_budget"]
    headers += [f"{m.name}_{column}" for m in study.metrics for column in numbers]
    lines = []
    for section in sections:
        for row in section.rows:
            own = row.kind in (CONTEXT, EVALUATED)  # such a row names its own model, in its settings
            line = ["" if own else study.experiment.backbone, study.experiment.corpus, section.subset]
            line += [row.kind, row.method, str(row.seeds)]
            line.append("" if own else digits(row.share or 0.0))
            for c in row.cells:
                counts = [str(c.cell.n), str(c.cell.total)]
                line += [
                    *bounds(c.cell.estimate),
                    *counts,
                    *bounds(c.to_base),
                    str(int(c.trained_on)),
                    str(int(c.best)),
                    *bounds(c.cell.estimate and c.cell.estimate.like)[1:],
                    *bounds(c.to_base and c.to_base.like)[1:],
                    c.cell.estimate.seeds.source if c.cell.estimate else "",
                ]
            lines.append([*line, row.settings])
    return Grid([*headers, "settings"], lines).csv()


def bounds(interval: Interval | None) -> list[str]:
    """Mean, low and high in seven digits, each empty where there is none."""
    if interval is None:
        return ["", "", ""]
    return [digits(interval.mean), *([digits(interval.low), digits(interval.high)] if interval.known else ["", ""])]


def main_tex(study: Study, sections: Sequence[Section]) -> str:
    """``booktabs`` tables for each subset, ready for ``\\input``."""
    caption = " ".join([study.experiment.notice, *notes(study, sections)])
    lines = [f"% {' '.join(study.experiment.notice.split())}", r"% needs \usepackage{booktabs}"]
    lines += [f"% {name}: {' '.join(value.split())}" for name, value in conditions.grid(study).rows]
    for section in sections:
        about = f" Subset: {section.subset}." if section.subset else ""
        for part in columns(study):
            lines += [r"\begin{table}[t]", r"\centering", rf"\caption{{{tex(caption + about)}}}"]
            lines += [*_tabular(study, section, part), r"\end{table}"]
    return "\n".join(lines) + "\n"


def _tabular(study: Study, section: Section, part: slice) -> list[str]:
    first = [name for name in row_headers(study) if name != "Seeds"]
    headings = [tex(m.heading).replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$") for m in study.metrics[part]]
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(first) + len(headings) - 1)}}}", r"\toprule"]
    lines += [" & ".join([*first, *headings]) + r" \\", r"\midrule"]
    for number, block in enumerate(section.blocks):
        lines += [r"\midrule"] if number else []
        for row in block:
            texts = [row.method, row.share_text][: len(first)]
            lines.append(" & ".join([*map(tex, texts), *map(_tex_cell, row.cells[part])]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _tex_cell(c: MainCell) -> str:
    estimate, mark = c.cell.estimate, r"$^\dagger$" if c.trained_on else ""
    if estimate is None:
        return rf"\textit{{{c.cell.gap}}}{mark}"
    value = c.metric.text(estimate.mean)
    value = rf"\textbf{{{value}}}" if c.best else value
    return rf"{value}{mark} {{\scriptsize {interval_text(c.metric, estimate)} {c.cell.counts}{_drift(c)}}}"


COUNTS = ("steps", "updates", "forwards", "reference_forwards", "backwards", "images", "reward_calls", "pairs")
"""What the meter counts exactly, beside FLOPs."""


def compute(study: Study) -> Grid:
    """What each job spent, for people. The base spent nothing and is left out."""
    headers = ["Job", "Status", "FLOPs", "Budget used", *(name.replace("_", " ").capitalize() for name in COUNTS)]
    rows = [
        [job.name, job.status, scientific(job.spent.flops), percent(study.share(job.spent))]
        + [count(getattr(job.spent, name)) for name in COUNTS]
        + [duration(job.spent.seconds) if job.spent.seconds else "–", memory(job.spent.peak_memory)]
        for job in study.jobs
    ]
    return Grid([*headers, "Time", "Peak memory"], rows)


COMPUTE_NOTE = (
    "FLOPs count training, rollouts and reward models, never evaluation. Forwards and backwards are in samples. "
    "Time (evaluation excluded) and peak memory are readings of the machine; everything else is counted exactly."
)


def compute_markdown(study: Study) -> str:
    """The compute table, saying what is counted and what is a clock reading."""
    return f"{head(study, 'Compute')}{compute(study).markdown()}\n{COMPUTE_NOTE}\n"


def compute_csv(study: Study) -> str:
    """The compute table in plain numbers: seconds and bytes."""
    headers = ["job", "method", "subset", "seed", "status", "flops", "share_of_budget", *COUNTS]
    rows = []
    for job in study.jobs:
        identity = [job.name, job.method, job.subset, str(job.seed), job.status]
        counts = [str(getattr(job.spent, name)) for name in COUNTS]
        readings = [repr(job.spent.seconds) if job.spent.seconds else "", str(job.spent.peak_memory)]
        rows.append([*identity, repr(job.spent.flops), digits(study.share(job.spent)), *counts, *readings])
    return Grid([*headers, "seconds", "peak_memory_bytes"], rows).csv()


def jobs(study: Study) -> Grid:
    """Where each job stands, and why, for one that stopped."""
    rows = [
        [job.name, job.status, f"{len(job.evaluations)}/{planned}", job.reason or "–", _scoring_errors(job)]
        for job, planned in [
            *((job, 1) for job in (*study.untrained, *study.swept)),
            *((job, len(study.fractions)) for job in study.jobs),
        ]
    ]
    return Grid(["Job", "Status", "Evaluations", "Reason", "Scoring errors"], rows)


def _scoring_errors(job: StudiedJob) -> str:
    errors = [
        f"{name}: {score.error or 'no score'}"
        for evaluation in job.evaluations
        for sample in evaluation.samples
        for name, score in sample.scores.items()
        if score.score is None
    ]
    return f"{len(errors)}, first {errors[0]}" if errors else "none"


def title(study: Study) -> str:
    """The names of the experiments."""
    return " + ".join(dict.fromkeys(experiment.name for experiment in study.experiments))


def summary(study: Study) -> str:
    """One sentence on what was compared, and with which settings."""
    experiment, sampler = study.experiment, study.experiment.suite.sampler
    rows = [row for subset in study.subsets for row in study.rows(subset)]
    seeds = sorted({len(row.jobs) for row in rows}) or [0]
    commits = dict.fromkeys(
        (job.record.git.commit or "unknown")[:12] + (" with uncommitted changes" if job.record.git.dirty else "")
        for job in study.everything
        if job.record
    )
    scales = conditions.scales(study) or f"{sampler.guidance_scale:g}"
    how = f"{sampler.steps} sampling steps, guidance {scales}, {sampler.resolution} px"
    scored = (
        f"scored by the suite {experiment.suite.name} v{experiment.suite.version} "
        f"({conditions.sampling(study, how)}) at commit {listed(list(commits)) or 'unknown'}."
    )
    if not study.jobs:
        swept = dict.fromkeys(job.sweep.get("method") or job.sweep["name"] for job in study.swept)
        names = [job.label for job in study.untrained] or [*swept]
        return f"{listed(names) or 'No model'}, {scored}"
    return (
        f"{listed(study.methods) or 'No method'} against the base model {experiment.backbone} "
        f"({experiment.backbone_hash[:12]}) on {listed(study.subsets) or 'no subset'} of the corpus "
        f"{experiment.corpus}, "
        f"{experiment.budget} for each job, {'–'.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} "
        f"seed{'s' if seeds[-1] != 1 else ''} per method; {scored}"
    )
