"""``index.html``: the whole report on one page, in light and in dark, with and without scripts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from bench.report import (
    conditions,
    exposure,
    guidance,
    html,
    method_inputs,
    method_settings,
    paradigms,
    swept_pairs,
    tables,
)
from bench.report.differences import Differences
from bench.report.looks import looks
from bench.report.page import browser, noise, payload, scripts, verdicts
from bench.report.page.power_curve import power_curves
from bench.report.pairs import Pairs
from bench.report.plots import Curves
from bench.report.published.compare import Comparison
from bench.report.same_method import Rate
from bench.report.stats import Estimate
from bench.report.study import Study
from bench.report.tables import MainCell, MainRow, Section
from bench.report.text import Grid, listed, scientific

TEMPLATE = (Path(__file__).parent / "document.html").read_text(encoding="utf-8")


@dataclass(frozen=True)
class PageCell:
    """A cell of the main table as the page shows it; positions are per cent of the column's common scale."""

    metric: str
    ranked: bool
    value: str
    interval: str
    gap: str
    mark: str
    best: bool
    counts: str = ""
    left: str = ""
    width: str = ""
    dot: str = ""
    change: str = ""
    within: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class SweptPart:
    """A sweep over guidance scales, and files of its samples beside the page, by subset."""

    sweep: guidance.Sweep
    samples: Mapping[str, str]


@dataclass(frozen=True)
class Parts:
    """What a page is made of besides the study: what the report's other files hold too, drawn once.

    Attributes:
        paired: the ``pairs`` of each section.
        lines: of ``plots.dynamics``, empty where nothing was trained.
        rates: how often groups of seeds of one method are told apart.
        samples: files of the sheets beside the page, by subset.
        biased: gives what was found of exposure bias, and may have to wait for it.
    """

    sections: Sequence[Section]
    paired: Sequence[Pairs]
    lines: Curves
    samples: Mapping[str, str]
    differing: Differences | None
    rates: Mapping[str, Rate]
    published: Comparison | None
    swept: SweptPart | None
    biased: Callable[[], exposure.Exposure | None]


def page(study: Study, parts: Parts, shown: Collection[Path]) -> dict[str, str | bytes]:
    """``index.html``, and the sheets of pictures in a folder beside it.

    Args:
        shown: pictures that the browser offers of checkpoints before the last one.
    """
    sections, paired = parts.sections, parts.paired
    scales = {metric.name: _scale(sections, i) for i, metric in enumerate(study.metrics)}
    order = sorted(range(len(study.metrics)), key=lambda i: not study.metrics[i].ranked)
    held = browser.browser(study, sections, shown)
    leads = [verdicts.leads(study, section) for section in sections]
    headlines = [(section.subset, verdicts.headline(found)) for section, found in zip(sections, leads, strict=True)]
    curves = power_curves(study) if study.jobs else []
    data = payload.payload(study, sections, paired, parts.lines, curves, held.data) if study.tabled else {}
    biased = parts.biased()
    document = html.render(
        TEMPLATE,
        title=tables.title(study),
        notice=study.experiment.notice,
        lede=lede(study),
        unfinished=unfinished(study),
        summary=tables.summary(study),
        metrics=[study.metrics[i] for i in order],
        trained=bool(study.jobs),
        tabled=study.tabled,
        swept=parts.swept and _swept(study, parts.swept),
        biased=biased and _biased(biased),
        based=study.base is not None,
        judged=any(c.judged and c.to_base for section in sections for row in section.rows for c in row.cells),
        row_headers=tables.row_headers(study),
        published=parts.published,
        verdicts=[_verdicts(study, *of) for of in zip(sections, paired, leads, headlines, strict=True)],
        sections=[
            (
                section,
                [[_page_row(study, row, scales, order) for row in block] for block in section.blocks],
            )
            for section in sections
        ],
        notes=tables.notes(study, sections) if study.tabled else [],
        dynamics_alt="Each metric against the share of the budget spent. " + _in_a_row(headlines),
        samples=_links(parts.samples),
        samples_alt="Samples of each row, a block for each prompt. The sample browser holds their scores.",
        differing=parts.differing,
        noise=noise.noise(study, sections, parts.rates, curves),
        inputs=method_inputs.inputs(study),
        inputs_note=method_inputs.NOTE,
        paradigms=paradigms.paradigms(study),
        paradigms_note=paradigms.PARADIGMS_NOTE,
        settings=method_settings.settings(study),
        settings_note=method_settings.NOTE,
        compute=tables.compute(study),
        compute_note=tables.COMPUTE_NOTE,
        conditions=conditions.grid(study),
        jobs=tables.jobs(study),
        versions=_versions(study),
        page_style=Markup(scripts.style() + _colours(data)),
        summary_json=Markup(payload.text(_summary(study, headlines))),
        data_json=Markup(payload.text(data)),
        library=Markup(scripts.library()),
        own=Markup(scripts.own()),
    )
    return {"index.html": document, **held.sheets}


def lede(study: Study) -> str:
    """What was compared, in one short sentence."""
    if not study.jobs:
        count = len(study.untrained) + len(study.swept)
        return f"{count} row{'s' if count != 1 else ''}, scored by the suite {study.experiment.suite.name}."
    seeds = sorted({len(row.jobs) for subset in study.subsets for row in study.rows(subset)})
    span = "–".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
    amount = study.budget.amount
    equal = scientific(amount) if study.budget.currency == "flops" else f"{amount:g}"
    return (
        f"{len(study.methods)} method{'s' if len(study.methods) > 1 else ''} on {listed(study.subsets)}, {span} "
        f"seed{'s' if seeds[-1] > 1 else ''} each, {equal} {verdicts.AMOUNTS[study.budget.currency]} for each job."
    )


def unfinished(study: Study) -> str:
    """What is said of a study that still runs; empty for one that has ended."""
    open_jobs = [job for job in study.everything if job.status not in ("finished", "failed")]
    if not open_jobs:
        return ""
    done = len(study.everything) - len(open_jobs)
    return f"Unfinished: {done} of {len(study.everything)} jobs have ended. The numbers below will change."


def _in_a_row(headlines: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{f'{subset}: ' if subset else ''}{text}" for subset, text in headlines)


def _links(files: Mapping[str, str]) -> list[tuple[str, str]]:
    """Subsets and addresses of files beside the page."""
    return [(subset, quote(name)) for subset, name in files.items()]


def _verdicts(
    study: Study, section: Section, paired: Pairs, leads: Sequence[verdicts.Lead], headline: tuple[str, str]
) -> dict[str, Any]:
    against = verdicts.reference(study, section)
    return {
        "subset": section.subset,
        "about": section.about,
        "headline": headline[1],
        "leads": leads,
        "reference": against,
        "questions": [
            question for question in verdicts.questions(study, section, paired) if question.against == against
        ],
    }


def _summary(study: Study, headlines: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What ``bench report --index`` reads of a page."""
    return {
        "title": tables.title(study),
        "notice": study.experiment.notice,
        "about": tables.summary(study),
        "lede": lede(study),
        "unfinished": unfinished(study),
        "verdicts": headlines,
    }


def _colours(data: Mapping[str, Any]) -> str:
    """Colours of rows as properties of the style, for white and for dark ground."""
    found = looks(data.get("looks", {}))
    light, dark = (
        "".join(f"--row-{i}:{getattr(look, kind)};" for i, look in enumerate(found.values()))
        for kind in ("colour", "dark")
    )
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}\n"


def _biased(found: exposure.Exposure) -> dict[str, Any]:
    return {
        "caption": exposure.CAPTION,
        "plot": bool(found.lines),
        "budget": bool(found.trained),
        "grids": exposure.grids(found),
        "sentences": exposure.sentences(found),
        "notes": exposure.notes(found),
    }


def _swept(study: Study, part: SweptPart) -> dict[str, Any]:
    differences = swept_pairs.grids(part.sweep)
    return {
        "heading": part.sweep.heading,
        "axis": part.sweep.axis.title,
        "caption": part.sweep.caption,
        "plot": f"{part.sweep.file}.svg",
        "grids": guidance.grids(part.sweep, "{} ★"),
        "notes": guidance.notes(study, part.sweep),
        "differences": differences,
        "difference_notes": swept_pairs.notes(part.sweep, differences),
        "samples": _links(part.samples),
    }


def _scale(sections: Sequence[Section], column: int) -> tuple[float, float]:
    """Lowest and highest bound of a metric's intervals, over all sections."""
    cells = (row.cells[column].cell.estimate for section in sections for row in section.rows)
    bounds = [bound for e in cells if e and e.known for bound in (e.low, e.high)]
    return (min(bounds), max(bounds)) if bounds else (0.0, 1.0)


def _page_row(
    study: Study, row: MainRow, scales: Mapping[str, tuple[float, float]], order: Sequence[int]
) -> tuple[str, str, list[str], list[PageCell]]:
    cells = [_page_cell(row.cells[i], scales[row.cells[i].metric.name]) for i in order]
    return row.kind, row.method, tables.row_texts(study, row), cells


def _page_cell(c: MainCell, scale: tuple[float, float]) -> PageCell:
    estimate, mark = c.cell.estimate, " †" if c.trained_on else ""
    if estimate is None:
        return PageCell(c.metric.name, c.metric.ranked, "", "", c.cell.gap, mark, best=False)
    return PageCell(
        metric=c.metric.name,
        ranked=c.metric.ranked,
        value=c.metric.text(estimate.mean),
        interval=tables.interval_text(c.metric, estimate),
        gap="",
        mark=mark,
        best=c.best,
        counts=c.cell.counts,
        **_bar(estimate, scale),
        **_change(c),
    )


def _bar(estimate: Estimate, scale: tuple[float, float]) -> dict[str, str]:
    if not estimate.known:
        return {}
    low, high = scale
    span = (high - low) or 1.0
    left, right, dot = (100 * (x - low) / span for x in (estimate.low, estimate.high, estimate.mean))
    return {"left": f"{left:.1f}", "width": f"{max(right - left, 1):.1f}", "dot": f"{dot:.1f}"}


def _change(c: MainCell) -> dict[str, str]:
    """The paired difference to the base in words, its interval, and whether it is better, worse or neither."""
    if c.to_base is None:
        return {}
    shown = {"change": c.metric.text(c.to_base.mean, "+"), "within": tables.interval_text(c.metric, c.to_base, "+")}
    if not (c.to_base.excludes_zero and c.metric.ranked and c.judged):
        return shown
    better = (c.to_base.mean > 0) == c.metric.higher_is_better
    return shown | {
        "change": f"{'▲' if better else '▼'} {shown['change']}",
        "verdict": "better" if better else "worse",
    }


def _versions(study: Study) -> Grid:
    """What ran: every version that any job recorded, once for each value it took."""
    recorded = [job.record for job in study.everything if job.record]
    versions: dict[str, dict[str, None]] = {}
    for name, version in chain.from_iterable(sorted(record.versions.items()) for record in recorded):
        versions.setdefault(name, {})[str(version)] = None
    return Grid(["What", "Version"], [[name, ", ".join(values)] for name, values in versions.items()])
