"""What a report's page costs: drawing it, its weight, opening it. ``python perf/report_page.py [RECORDS] [--json]``.

Drawing is on a clock, and in CPU seconds of its processes. Opening is timed in the system's Chromium until the scripts
have run, and until every chart is drawn: on a clock, for which the machine must be idle, and in CPU seconds of the main
thread of the page. With ``--cpu-time`` the clocks are left out. ``--picture FILE`` saves what a reader sees first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import common
from common import Figure

RECORDS = Path(__file__).parents[1] / "reports" / "reference" / "embedded" / "records.tar.xz"


def drawing(records: Path, out: Path, cpu_time: bool) -> list[Figure]:
    """Seconds for drawing a report, and the bytes of its page and of the pictures beside it."""
    from bench.report import render_report

    def spent() -> float:
        return sum(os.times()[:4])  # of this process and of those that it has waited for

    start, clock = spent(), time.perf_counter()
    render_report([records], out)
    seconds, on_the_clock = spent() - start, time.perf_counter() - clock
    beside = sum(path.stat().st_size for path in (out / "pictures").glob("*"))
    return [
        *([] if cpu_time else [Figure("drawing the report, on a clock", on_the_clock, "s", "at most 20")]),
        Figure("drawing the report, its processes", seconds, "CPU s"),
        Figure("index.html", (out / "index.html").stat().st_size / 1e6, "MB", "at most 8"),
        Figure("pictures beside it", beside / 1e6, "MB"),
    ]


def opening(page: Path, picture: Path | None, cpu_time: bool) -> list[Figure]:
    """Seconds from opening a page until its scripts have run, and until all of its charts are drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1440, "height": 900})
        opened.set_default_timeout(600_000)
        tools = opened.context.new_cdp_session(opened)
        tools.send("Performance.enable", {"timeDomain": "threadTicks"})

        def busy() -> float:
            found = tools.send("Performance.getMetrics")["metrics"]
            return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

        start = time.perf_counter()
        opened.goto(page.resolve().as_uri())
        usable, usable_busy = time.perf_counter() - start, busy()
        opened.evaluate("dispatchEvent(new Event('beforeprint'))")
        drawn, drawn_busy = time.perf_counter() - start, busy()
        if picture:
            opened.reload()
            opened.screenshot(path=picture)
        browser.close()
    on_the_clock = [
        Figure("until it is usable, on a clock", usable, "s", "at most 2"),
        Figure("until every chart is drawn, on a clock", drawn, "s"),
    ]
    return [
        Figure("until it is usable, main thread", usable_busy, "CPU s", "at most 2"),
        Figure("until every chart is drawn, main thread", drawn_busy, "CPU s"),
        *([] if cpu_time else on_the_clock),
    ]


def main() -> None:
    """Measure one report, print a table, write JSON if asked to."""
    parser = common.parser(__doc__, models=False)
    parser.add_argument("records", type=Path, nargs="?", default=RECORDS, help="a run folder or an archive")
    parser.add_argument("--picture", type=Path, help="where to save the first screen, as PNG")
    parser.add_argument("--cpu-time", action="store_true", help="no clock: for a machine with other work")
    arguments: argparse.Namespace = parser.parse_args()
    device = common.start(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = drawing(arguments.records, Path(folder), arguments.cpu_time)
        figures += opening(Path(folder) / "index.html", arguments.picture, arguments.cpu_time)
    common.tell("report_page", figures, ["drawing holds the unpacking of an archive"], arguments, device)


if __name__ == "__main__":
    main()
