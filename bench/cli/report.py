"""``bench report`` and ``bench archive``: what is made of records."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli import types
from bench.cli.printing import say
from bench.errors import BenchError


@click.command()
@click.argument("runs", type=types.PATH, nargs=-1)
@click.option("--out", type=types.FOLDER, help="Folder to write to; default reports/<experiment>.")
@click.option("--published", is_flag=True, default=None, help="The paper's numbers: beside RUNS, or alone.")
def report(runs: tuple[Path, ...], out: Path | None, published: bool | None) -> None:
    """Draw tables, plots and the page again from the records of RUNS, folders or archives. Needs no GPU.

    \b
        bench report runs/high_aesthetic
        bench report runs/a runs/b --out reports/both
        bench report --published
    """
    from bench.report import render_published, render_report

    if not (runs or published):
        raise BenchError("name a run folder, e.g. runs/high_aesthetic, or ask for --published")
    names = (run.resolve().name.partition(".tar")[0] for run in runs)  # of `.` too
    target = out or Path("reports") / ("-".join(names) or "published")
    if runs:
        render_report(list(runs), target, published)
    else:
        render_published(target)
    say(f"report: {target / 'index.html'}")


@click.command()
@click.argument("run", type=types.PATH)
@click.option("--out", type=types.PATH, required=True, help="File to write, ending in .tar.xz.")
def archive(run: Path, out: Path) -> None:
    """Pack what RUN's report is drawn from into one small file: records and the final images, no weights.

    \b
        bench archive runs/embedded --out reports/embedded/records.tar.xz
        bench report reports/embedded/records.tar.xz --out reports/again
    """
    from bench.records.archive import pack
    from bench.report import shown_images

    count = pack(run, out, *shown_images(run))
    say(f"archive: {out} ({count} files, {out.stat().st_size / 1e6:.2f} MB)")
