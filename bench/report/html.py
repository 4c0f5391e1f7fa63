"""What every page has in common: one file that needs nothing else, in light and in dark, with its notice first."""

from __future__ import annotations

from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

STYLE = """
:root { color-scheme: light dark; --ink: #202124; --soft: #5f6368; --line: #dfe1e5; --paper: #fff; --card: #f6f7f9;
  --up: #0b6e4f; --down: #b3261e; --up-bg: #e2f3ec; --down-bg: #fbe6e4; --accent: #0072b2; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a0a6ad; --line: #3a3d42; --paper: #17181b;
  --card: #212327; --up: #6fd3ae; --down: #f2a09a; --up-bg: #17352b; --down-bg: #42211f; --accent: #6bb8e8;
  --warn: #3a3118; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1440px; padding: 24px 28px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.notice { background: var(--warn); border-radius: 8px; padding: 10px 16px; font-weight: 600; }
h1 { font-size: 30px; line-height: 1.2; margin: 28px 0 8px; } h2 { font-size: 21px; margin: 44px 0 8px; }
h3 { font-size: 15px; margin: 20px 0 6px; } h3 small, .soft { color: var(--soft); font-weight: 400; }
p { max-width: 82ch; }
nav { display: flex; flex-wrap: wrap; gap: 18px; } a { color: var(--accent); text-decoration: none; }
.wide { overflow-x: auto; } .wide + .wide { margin-top: 18px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
caption { text-align: left; color: var(--soft); font-size: 12.5px; padding: 4px 0; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 2px solid var(--line); padding: 8px 12px; }
td { border-bottom: 1px solid var(--line); }
td, tbody th { padding: 9px 12px; vertical-align: top; }
tbody th { color: var(--ink); white-space: nowrap; border-bottom: 1px solid var(--line); }
tr.base > * { background: var(--card); } tr.context > * { color: var(--soft); }
tbody + tbody { border-top: 2px solid var(--soft); }
.main td { font-variant-numeric: tabular-nums; } .main td.score { min-width: 112px; }
.main td, .main th, .beside td, .beside th { padding-left: 8px; padding-right: 8px; }
.main tbody th, .beside tbody th { position: sticky; left: 0; z-index: 1; background: var(--paper);
  white-space: normal; overflow-wrap: break-word; min-width: 84px; }
.main tr.base th { background: var(--card); }
.value { font-size: 16px; } .best { font-weight: 700; } .best::after { content: " ★"; color: var(--accent); }
.interval { display: block; color: var(--soft); font-size: 12.5px; white-space: nowrap; }
.counts { color: var(--soft); font-size: 11.5px; }
.gap { color: var(--down); font-style: italic; }
.bar { position: relative; height: 8px; margin: 5px 0; border-radius: 4px; background: var(--line); }
.bar i { position: absolute; top: 0; height: 8px; border-radius: 4px; background: var(--accent); opacity: .45; }
.bar b { position: absolute; top: -2px; width: 3px; height: 12px; margin-left: -1px; border-radius: 2px;
  background: var(--accent); }
.chip { display: inline-block; border-radius: 8px; padding: 1px 7px; font-size: 11.5px; line-height: 1.4;
  white-space: nowrap; background: var(--card); color: var(--soft); }
.chip.better { background: var(--up-bg); color: var(--up); }
.chip.worse { background: var(--down-bg); color: var(--down); }
.numbers td { white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums; }
.numbers thead th:not(:first-child) { text-align: right; } .numbers { font-size: 13px; }
.numbers td, .numbers th, .paradigms td, .paradigms th { padding-left: 8px; padding-right: 8px; }
.paradigms td { min-width: 92px; font-size: 13px; } .paradigms td:nth-last-child(2) { min-width: 190px; }
.swept { table-layout: fixed; min-width: 900px; }
.beside td, .beside tbody th { white-space: pre; font-variant-numeric: tabular-nums; font-size: 12.5px; }
.beside tr:nth-child(3n-2) > * { border-bottom-style: dotted; } .beside tr:nth-child(3n-1) > * { color: var(--soft); }
.beside tr:nth-child(3n) > * { border-bottom: 2px solid var(--line); font-weight: 600; }
.figure { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 12px; margin: 12px 0; }
.figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
ul.notes { color: var(--soft); font-size: 13px; padding-left: 18px; max-width: 100ch; }
"""

DOCUMENT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}{% block style %}{% endblock %}</style>
</head>
<body>
<main>
<div class="notice">{{ notice }}</div>
<h1>{{ title }}</h1>
{%- block body %}{% endblock %}
</main>
{%- block scripts %}{% endblock %}
</body>
</html>
"""

TABLE = """{% macro table(grid, kind, caption) %}
<div class="wide" role="group" aria-label="{{ caption }}" tabindex="0"><table class="{{ kind }}">
<caption>{{ caption }}</caption>
<thead><tr>{% for header in grid.headers %}<th scope="col">{{ header }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in grid.rows %}
<tr><th scope="row">{{ row[0] }}</th>{% for text in row[1:] %}<td>{{ text }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table></div>
{%- endmacro %}"""


def render(template: str, *, title: str, notice: str, **values: Any) -> str:
    """Fill a template that extends ``document`` and may import ``table``.

    Every value is escaped: prompts, reasons and names come from the records and are text, never markup.
    """
    loader = DictLoader({"document": DOCUMENT, "table": TABLE})
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    # The style is our own constant; a browser decodes no entities there.
    return environment.from_string(template).render(title=title, notice=notice, style=Markup(STYLE), **values)
