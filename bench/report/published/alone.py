"""The published tables with no run at all: ``bench report --published``."""

from __future__ import annotations

from bench.report import html
from bench.report.published import data

NOTICE = "Published numbers of the SOAR paper (arXiv 2604.12617). Nothing here was measured by this project."

ABOUT = (
    "GenEval and OCR are on Flow-GRPO's test sets, the other five on DrawBench. SD3.5-M's rows are at 512 px and CFG "
    "4.5. The paper gives no interval, number of seeds or noise seed. A dash is what it does not say."
)

TEMPLATE = """{% extends "document" %}
{% from "table" import table %}
{% block body %}
<p>{{ paper }}. {{ about }}</p>
{% for published in tables %}
<h2>{{ published.source }}</h2>
<p class="soft">{{ published.about }}</p>
{{ table(published.grid(), "published", published.source) }}
{% endfor %}
{% endblock %}
"""


def files() -> dict[str, str]:
    """Text of each file, by name."""
    tables = data.tables()
    parts = [f"{NOTICE}\n\n# Published numbers\n\n{data.PAPER}.\n\n{ABOUT}\n"]
    parts += [f"\n## {table.source}\n\n{table.about}\n\n{table.grid().markdown()}" for table in tables]
    page = html.render(TEMPLATE, title="Published numbers", notice=NOTICE, paper=data.PAPER, about=ABOUT, tables=tables)
    return {
        "published.md": "".join(parts),
        **{f"{table.name}.csv": table.csv() for table in tables},
        "index.html": page,
    }
