"""``index.html``: the whole report in one file that needs nothing else, in light and in dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from bench.report import conditions, exposure, guidance, html, method_inputs, method_settings, paradigms, tables
from bench.report.differences import Differences
from bench.report.published.compare import Comparison
from bench.report.stats import Estimate
from bench.report.study import Study
from bench.report.tables import MainCell, MainRow, Section
from bench.report.text import Grid

TEMPLATE = """{% extends "document" %}
{% from "table" import table %}
{% block body %}
<p>{{ summary }}</p>
<nav>{% if tabled %}<a href="#results">Results</a>{% endif %}
{%- if differing %}<a href="#differences">Differences</a>{% endif %}
{%- if trained %}<a href="#given">Given</a>{% endif %}
{%- if published %}<a href="#published">Published</a>{% endif %}
{%- if trained %}<a href="#dynamics">Dynamics</a>{% endif %}
{%- if biased %}<a href="#exposure">Exposure bias</a>{% endif %}
{%- if swept %}<a href="#guidance">{{ swept.heading }}</a>{% endif %}
{%- if tabled %}<a href="#samples">Samples</a>{% endif %}
{%- if trained %}<a href="#paradigms">Paradigms</a><a href="#settings">Settings</a>{% endif %}
{%- if trained %}<a href="#compute">Compute</a>{% endif %}
<a href="#conditions">Conditions</a><a href="#jobs">Jobs</a></nav>

{% if tabled %}
<h2 id="results">Main results</h2>
{%- for section, blocks in sections %}
{%- if section.subset %}<h3>{{ section.subset }} <small>{{ section.about }}</small></h3>{% endif %}
{%- for part in parts %}
<div class="wide"><table class="main">
<thead><tr>{% for header in row_headers %}<th>{{ header }}</th>{% endfor %}
{%- for metric in metrics[part] %}<th>{{ metric.heading }}</th>{% endfor %}</tr></thead>
{%- for rows in blocks %}
<tbody>
{%- for kind, texts, cells in rows %}
<tr class="{{ kind }}">{% for text in texts %}<td>{{ text }}</td>{% endfor %}
{%- for cell in cells[part] %}
<td class="score">{% if cell.value -%}
<span class="value{{ " best" if cell.best }}">{{ cell.value }}</span>{{ cell.mark }}
<span class="interval">{{ cell.interval }}</span>
<div class="bar"><i style="left:{{ cell.left }}%;width:{{ cell.width }}%"></i><b style="left:{{ cell.dot }}%"></b></div>
{% if cell.change %}<span class="chip {{ cell.verdict }}">{{ cell.change }}<br>{{ cell.within }}</span>{% endif %}
<div class="counts">{{ cell.counts }}</div>
{%- else %}<span class="gap">{{ cell.gap }}</span>{{ cell.mark }}{% endif %}</td>
{%- endfor %}</tr>
{%- endfor %}
</tbody>
{%- endfor %}</table></div>
{%- endfor %}
{%- endfor %}
<ul class="notes">
{%- for note in notes %}<li>{{ note }}</li>{% endfor %}
<li>Below each value: its interval, on a scale shared by the column; {% if based -%}
the paired difference to the base with its 95 % interval
{%- if judged %}, ▲ better, ▼ worse, where that interval excludes zero{% endif %};
{% endif %}how many of the images owed are scored.</li></ul>
{% endif %}
{%- if differing %}
<h2 id="differences">Differences</h2>
{%- for subset, grid in differing.grids %}<h3>{{ subset }}</h3>{{ table(grid, "numbers") }}{% endfor %}
<ul class="notes">{% for note in differing.notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% endif %}
{%- if trained %}
<h2 id="given">Given</h2>
{{ table(inputs, "paradigms") }}
<p class="soft">{{ inputs_note }}</p>
{% endif %}
{% if published %}
<h2 id="published">Beside the published numbers</h2>
<p>{{ published.about }}</p>
{% for grid in published.grids %}{{ table(grid, "beside") }}{% endfor %}
<ul class="notes">{% for note in published.notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% endif %}
{%- if trained %}
<h2 id="dynamics">Training dynamics</h2>
<div class="figure"><img src="{{ dynamics }}" alt="Each metric against the share of the budget spent"></div>
{% endif %}
{%- if biased %}
<h2 id="exposure">Exposure bias</h2>
<p>{{ biased.caption }}</p>
<ul>{% for sentence in biased.sentences %}<li>{{ sentence }}</li>{% endfor %}</ul>
<div class="figure"><img src="{{ biased.plot }}" alt="Each measure of exposure bias against the noise level"></div>
{%- if biased.budget %}
<div class="figure"><img src="{{ biased.budget }}" alt="Each measure of exposure bias over the budget"></div>
{%- endif %}
{% for grid in biased.grids %}{{ table(grid, "numbers") }}{% endfor %}
<ul class="notes">{% for note in biased.notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% endif %}
{%- if swept %}
<h2 id="guidance">{{ swept.heading }}</h2>
<p>{{ swept.caption }}</p>
<div class="figure"><img src="{{ swept.plot }}" alt="Each metric against the {{ swept.axis }}"></div>
{% for grid in swept.grids %}{{ table(grid, "numbers swept") }}{% endfor %}
<ul class="notes">{% for note in swept.notes %}<li>{{ note }}</li>{% endfor %}</ul>
{%- for subset, picture in swept.samples %}
<h3>Samples at each scale{{ ", " ~ subset if subset }} <small>same prompt and noise in every tile of a block; first seed
</small></h3>
<div class="figure"><img src="{{ picture }}" alt="Samples of each model at each {{ swept.axis }}"></div>
{%- endfor %}
{% endif %}
{%- if tabled %}
<h2 id="samples">Samples</h2>
{%- for subset, picture in samples %}
{%- if subset %}<h3>{{ subset }}
<small>same prompt and noise in every tile of a block; first seed</small></h3>{% endif %}
<div class="figure"><img src="{{ picture }}" alt="Samples of each method at each checkpoint"></div>
{%- else %}<p class="soft">No sample is recorded yet.</p>
{%- endfor %}
{% endif %}
{% if trained %}
<h2 id="paradigms">Paradigms</h2>
{{ table(paradigms, "paradigms") }}
<p class="soft">{{ paradigms_note }}</p>
<h2 id="settings">Settings</h2>
{{ table(settings, "paradigms") }}
<p class="soft">{{ settings_note }}</p>

<h2 id="compute">Compute</h2>
{{ table(compute, "numbers") }}
<p class="soft">{{ compute_note }}</p>
{% endif %}
<h2 id="conditions">Conditions</h2>
{{ table(conditions, "") }}

<h2 id="jobs">Jobs</h2>
{{ table(jobs, "") }}
<h3>Versions</h3>
{{ table(versions, "") }}
{% endblock %}
"""


@dataclass(frozen=True)
class PageCell:
    """A cell of the main table as the page shows it; positions are per cent of the column's common scale."""

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
    """A sweep over guidance scales with its plot (SVG) and its samples (PNG) by subset."""

    sweep: guidance.Sweep
    svg: bytes
    samples: Mapping[str, bytes]


@dataclass(frozen=True)
class BiasedPart:
    """Exposure bias with its plots (SVG): against the level, and over the budget where something was trained."""

    found: exposure.Exposure
    levels: bytes
    budget: bytes


def page(
    study: Study,
    sections: Sequence[Section],
    dynamics_svg: bytes,
    samples: Mapping[str, bytes],
    differing: Differences | None,
    published: Comparison | None,
    swept: SweptPart | None,
    biased: BiasedPart | None = None,
) -> str:
    """The page. ``samples`` are PNGs by subset; the dynamics are shown only where something was trained."""
    scales = {metric.name: _scale(sections, i) for i, metric in enumerate(study.metrics)}
    return html.render(
        TEMPLATE,
        title=tables.title(study),
        notice=study.experiment.notice,
        summary=tables.summary(study),
        metrics=study.metrics,
        trained=bool(study.jobs),
        tabled=study.tabled,
        swept=swept and _swept(study, swept),
        biased=biased and _biased(biased),
        based=study.base is not None,
        judged=any(c.judged and c.to_base for section in sections for row in section.rows for c in row.cells),
        row_headers=tables.row_headers(study),
        parts=tables.columns(study),
        published=published,
        sections=[
            (
                section,
                [[_page_row(study, row, scales) for row in block] for block in section.blocks],
            )
            for section in sections
        ],
        notes=tables.notes(study, sections),
        dynamics=_data_uri("image/svg+xml", dynamics_svg),
        samples=[(subset, _data_uri("image/png", picture)) for subset, picture in samples.items()],
        differing=differing,
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
    )


def _biased(part: BiasedPart) -> dict[str, Any]:
    return {
        "caption": exposure.CAPTION,
        "plot": _data_uri("image/svg+xml", part.levels),
        "budget": part.budget and _data_uri("image/svg+xml", part.budget),
        "grids": exposure.grids(part.found),
        "sentences": exposure.sentences(part.found),
        "notes": exposure.notes(part.found),
    }


def _swept(study: Study, part: SweptPart) -> dict[str, Any]:
    return {
        "heading": part.sweep.heading,
        "axis": part.sweep.axis.title,
        "caption": part.sweep.caption,
        "plot": _data_uri("image/svg+xml", part.svg),
        "grids": guidance.grids(part.sweep, "{} ★"),
        "notes": guidance.notes(study, part.sweep),
        "samples": [(subset, _data_uri("image/png", picture)) for subset, picture in part.samples.items()],
    }


def _scale(sections: Sequence[Section], column: int) -> tuple[float, float]:
    """Lowest and highest bound of a metric's intervals, over all sections."""
    cells = (row.cells[column].cell.estimate for section in sections for row in section.rows)
    bounds = [bound for e in cells if e for bound in (e.low, e.high)]
    return (min(bounds), max(bounds)) if bounds else (0.0, 1.0)


def _page_row(
    study: Study, row: MainRow, scales: Mapping[str, tuple[float, float]]
) -> tuple[str, list[str], list[PageCell]]:
    return row.kind, tables.row_texts(study, row), [_page_cell(c, scales[c.metric.name]) for c in row.cells]


def _page_cell(c: MainCell, scale: tuple[float, float]) -> PageCell:
    estimate, mark = c.cell.estimate, " †" if c.trained_on else ""
    if estimate is None:
        return PageCell("", "", c.cell.gap, mark, best=False)
    return PageCell(
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


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
