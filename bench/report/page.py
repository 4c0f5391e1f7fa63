"""``index.html``: the whole report in one file that needs nothing else, in light and in dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bench.report import tables
from bench.report.read import Study
from bench.report.stats import Estimate
from bench.report.tables import MainCell, Section
from bench.report.text import Grid

STYLE = """
:root { color-scheme: light dark; --ink: #202124; --soft: #5f6368; --line: #dfe1e5; --paper: #fff; --card: #f6f7f9;
  --up: #0b6e4f; --down: #b3261e; --up-bg: #e2f3ec; --down-bg: #fbe6e4; --accent: #0072b2; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a0a6ad; --line: #3a3d42; --paper: #17181b;
  --card: #212327; --up: #6fd3ae; --down: #f2a09a; --up-bg: #17352b; --down-bg: #42211f; --accent: #6bb8e8;
  --warn: #3a3118; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1280px; padding: 24px 28px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.notice { background: var(--warn); border-radius: 8px; padding: 10px 16px; font-weight: 600; }
h1 { font-size: 30px; line-height: 1.2; margin: 28px 0 8px; } h2 { font-size: 21px; margin: 44px 0 8px; }
h3 { font-size: 15px; margin: 20px 0 6px; } h3 small, .soft { color: var(--soft); font-weight: 400; }
p { max-width: 82ch; }
nav { display: flex; flex-wrap: wrap; gap: 18px; } a { color: var(--accent); text-decoration: none; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 2px solid var(--line); padding: 8px 12px; }
td { border-bottom: 1px solid var(--line); padding: 9px 12px; vertical-align: top; }
td:first-child { font-weight: 600; white-space: nowrap; }
tr.base td { background: var(--card); } tr.context td { color: var(--soft); }
tbody + tbody { border-top: 2px solid var(--soft); }
.main td { font-variant-numeric: tabular-nums; min-width: 150px; } .main td:nth-child(-n+3) { min-width: 0; }
.value { font-size: 16px; } .best { font-weight: 700; } .best::after { content: " ★"; color: var(--accent); }
.interval { color: var(--soft); font-size: 12.5px; white-space: nowrap; }
.gap { color: var(--down); font-style: italic; }
.bar { position: relative; height: 8px; margin: 5px 0; border-radius: 4px; background: var(--line); }
.bar i { position: absolute; top: 0; height: 8px; border-radius: 4px; background: var(--accent); opacity: .45; }
.bar b { position: absolute; top: -2px; width: 3px; height: 12px; margin-left: -1px; border-radius: 2px;
  background: var(--accent); }
.chip { display: inline-block; border-radius: 10px; padding: 0 8px; font-size: 12px; white-space: nowrap;
  background: var(--card); color: var(--soft); }
.chip.better { background: var(--up-bg); color: var(--up); }
.chip.worse { background: var(--down-bg); color: var(--down); }
.numbers td:not(:first-child) { white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums; }
.numbers th:not(:first-child) { text-align: right; } .numbers { font-size: 13px; }
.numbers td, .numbers th, .paradigms td, .paradigms th { padding-left: 8px; padding-right: 8px; }
.paradigms td { min-width: 92px; font-size: 13px; } .paradigms td:nth-last-child(2) { min-width: 190px; }
.figure { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 12px; margin: 12px 0; }
.figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
ul.notes { color: var(--soft); font-size: 13px; padding-left: 18px; max-width: 100ch; }
"""

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
{%- macro table(grid, kind) %}
<div class="wide"><table class="{{ kind }}">
<thead><tr>{% for header in grid.headers %}<th>{{ header }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in grid.rows %}
<tr>{% for text in row %}<td>{{ text }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table></div>
{%- endmacro %}
<div class="notice">{{ notice }}</div>
<h1>{{ title }}</h1>
<p>{{ summary }}</p>
<nav><a href="#results">Results</a><a href="#dynamics">Dynamics</a><a href="#samples">Samples</a>
<a href="#paradigms">Paradigms</a><a href="#compute">Compute</a><a href="#jobs">Jobs</a></nav>

<h2 id="results">Main results</h2>
{%- for section, blocks in sections %}
{%- if section.subset %}<h3>{{ section.subset }} <small>{{ section.about }}</small></h3>{% endif %}
<div class="wide"><table class="main">
<thead><tr><th>Method</th><th>Seeds</th><th>Budget used</th>
{%- for metric in metrics %}<th>{{ metric.heading }}</th>{% endfor %}</tr></thead>
{%- for rows in blocks %}
<tbody>
{%- for row, cells in rows %}
<tr class="{{ row.kind }}"><td>{{ row.method }}</td><td>{{ row.seeds_text }}</td><td>{{ row.share_text }}</td>
{%- for cell in cells %}
<td>{% if cell.value %}<span class="value{{ " best" if cell.best }}">{{ cell.value }}</span>{{ cell.mark }}
<span class="interval">{{ cell.interval }}</span>
<div class="bar"><i style="left:{{ cell.left }}%;width:{{ cell.width }}%"></i><b style="left:{{ cell.dot }}%"></b></div>
{% if cell.change %}<span class="chip {{ cell.verdict }}">{{ cell.change }}</span>{% endif %}
{%- else %}<span class="gap">{{ cell.gap }}</span>{{ cell.mark }}{% endif %}</td>
{%- endfor %}</tr>
{%- endfor %}
</tbody>
{%- endfor %}</table></div>
{%- endfor %}
<ul class="notes">
{%- for note in notes %}<li>{{ note }}</li>{% endfor %}
<li>Below each value: its interval on a scale shared by the column, and the paired difference to the base with its
95 % interval; ▲ better, ▼ worse, where that interval excludes zero.</li></ul>

<h2 id="dynamics">Training dynamics</h2>
<div class="figure"><img src="{{ dynamics }}" alt="Each metric against the share of the budget spent"></div>

<h2 id="samples">Samples</h2>
{%- for subset, picture in samples %}
{%- if subset %}<h3>{{ subset }}
<small>same prompt and noise in every tile of a block; first seed</small></h3>{% endif %}
<div class="figure"><img src="{{ picture }}" alt="Samples of each method at each checkpoint"></div>
{%- else %}<p class="soft">No sample is recorded yet.</p>
{%- endfor %}

<h2 id="paradigms">Paradigms</h2>
{{ table(paradigms, "paradigms") }}
<p class="soft">{{ paradigms_note }}</p>

<h2 id="compute">Compute</h2>
{{ table(compute, "numbers") }}
<p class="soft">{{ compute_note }}</p>

<h2 id="jobs">Jobs</h2>
{{ table(jobs, "") }}
<h3>Versions</h3>
{{ table(versions, "") }}
</body>
</html>
"""


@dataclass(frozen=True)
class PageCell:
    """A cell of the main table as the page shows it; positions are per cent of the column's common scale."""

    value: str
    interval: str
    gap: str
    mark: str
    best: bool
    left: str = ""
    width: str = ""
    dot: str = ""
    change: str = ""
    verdict: str = ""


def page(study: Study, sections: Sequence[Section], dynamics_svg: bytes, samples: Mapping[str, bytes]) -> str:
    """The page. ``samples`` are PNGs by subset."""
    scales = {metric.name: _scale(sections, i) for i, metric in enumerate(study.metrics)}
    # Every value is escaped: prompts, reasons and names come from the records and are text, never markup.
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(TEMPLATE).render(
        style=Markup(STYLE),  # our own constant; a browser decodes no entities there
        title=tables.title(study),
        notice=study.experiment.notice,
        summary=tables.summary(study),
        metrics=study.metrics,
        sections=[
            (
                section,
                [
                    [(row, [_page_cell(c, scales[c.metric.name]) for c in row.cells]) for row in block]
                    for block in section.blocks
                ],
            )
            for section in sections
        ],
        notes=tables.notes(study, sections),
        dynamics=_data_uri("image/svg+xml", dynamics_svg),
        samples=[(subset, _data_uri("image/png", picture)) for subset, picture in samples.items()],
        paradigms=tables.paradigms(study),
        paradigms_note=tables.PARADIGMS_NOTE,
        compute=tables.compute(study),
        compute_note=tables.COMPUTE_NOTE,
        jobs=tables.jobs(study),
        versions=_versions(study),
    )


def _scale(sections: Sequence[Section], column: int) -> tuple[float, float]:
    """Lowest and highest bound of a metric's intervals, over all sections."""
    cells = (row.cells[column].cell.estimate for section in sections for row in section.rows)
    bounds = [bound for e in cells if e for bound in (e.low, e.high)]
    return (min(bounds), max(bounds)) if bounds else (0.0, 1.0)


def _page_cell(c: MainCell, scale: tuple[float, float]) -> PageCell:
    estimate, mark = c.cell.estimate, " †" if c.trained_on else ""
    if estimate is None:
        return PageCell("", "", c.cell.gap, mark, best=False)
    change, verdict = _change(c)
    return PageCell(
        value=c.metric.text(estimate.mean),
        interval=tables.interval_text(c.metric, estimate),
        gap="",
        mark=mark,
        best=c.best,
        **_bar(estimate, scale),
        change=change,
        verdict=verdict,
    )


def _bar(estimate: Estimate, scale: tuple[float, float]) -> dict[str, str]:
    low, high = scale
    span = (high - low) or 1.0
    left, right, dot = (100 * (x - low) / span for x in (estimate.low, estimate.high, estimate.mean))
    return {"left": f"{left:.1f}", "width": f"{max(right - left, 1):.1f}", "dot": f"{dot:.1f}"}


def _change(c: MainCell) -> tuple[str, str]:
    """The paired difference to the base in words, and whether it is better, worse or neither."""
    if c.to_base is None:
        return "", ""
    text = tables.difference_text(c.metric, c.to_base)
    if not c.to_base.excludes_zero:
        return text, ""
    better = (c.to_base.mean > 0) == c.metric.higher_is_better
    return f"{'▲' if better else '▼'} {text}", "better" if better else "worse"


def _versions(study: Study) -> Grid:
    """What ran: every version that any job recorded, once for each value it took."""
    recorded = [job.record for job in (study.base, *study.context, *study.jobs) if job.record]
    found: dict[str, dict[str, None]] = {}
    for metric in study.metrics:
        found.setdefault(f"metric {metric.name}", {})[f"v{metric.version}"] = None
    for name, version in chain.from_iterable(sorted(record.versions.items()) for record in recorded):
        found.setdefault(name, {})[str(version)] = None
    found["backbone"] = {f"{study.experiment.backbone} {study.experiment.backbone_hash}": None}
    return Grid(["What", "Version"], [[name, ", ".join(values)] for name, values in found.items()])


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
