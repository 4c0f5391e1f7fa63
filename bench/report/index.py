"""One page over all reports of a folder: what was compared, on what, when it was drawn, and its verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench import records
from bench.errors import BenchError, of_path, shown
from bench.report import html

NOTICE = "Each line is a report of its own, with its own suite and budget. Numbers of two lines do not compare."

TEMPLATE = (Path(__file__).parent / "index_page.html").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Entry:
    """A report of the index. ``path`` is its folder's, below the folder of the index."""

    path: str
    link: str
    drawn: str
    title: str
    lede: str
    about: str = ""
    notice: str = ""
    unfinished: str = ""
    verdicts: list[tuple[str, str]] = field(default_factory=list)


def render_index(folder: Path) -> Path:
    """Write ``index.html`` over all reports below ``folder``, in the order of their paths.

    The day on which a report was drawn is that of its file. BenchError where there is no report.
    """
    entries = [*_entries(folder)]
    if not entries:
        raise BenchError(f"{folder} holds no report; draw one first, e.g. bench report runs/<experiment>")
    page = html.render(TEMPLATE, title="Reports", notice=NOTICE, reports=entries)
    records.write_bytes(folder / "index.html", shown(page, keep="\n\t").encode())
    return folder / "index.html"


def _entries(folder: Path) -> Iterator[Entry]:
    for page in sorted(folder.glob("**/index.html")):
        if page.parent == folder:
            continue
        path = page.parent.relative_to(folder).as_posix()
        try:
            drawn = datetime.fromtimestamp(page.stat().st_mtime, UTC).date().isoformat()
            told = _summary(page.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise of_path(error, page) from error
        yield Entry(path=path, link=f"{quote(path)}/index.html", drawn=drawn, **told)


class _Finder(HTMLParser):
    """Finds the text of the script that holds a page's summary."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self._inside = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script" and ("id", "summary") in attrs

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.text += data


def _summary(page: str) -> dict[str, Any]:
    """What a page says of itself; of a page that is no report of this version, that it is none."""
    finder = _Finder()
    finder.feed(page)
    try:
        found = records.loads(finder.text)
        texts = {key: str(found[key]) for key in ("title", "lede", "about", "notice", "unfinished")}
        return texts | {"verdicts": [(str(subset), str(text)) for subset, text in found["verdicts"]]}
    except (ValueError, KeyError, TypeError):
        return {"title": "A page without a summary", "lede": "Draw it again: bench report RUN --out FOLDER."}
