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
@click.option("--noise", type=types.PATH, help="A file of `bench noise`, in place of the suite's own.")
@click.option("--index", is_flag=True, help="One page over all reports in the folder --out; default reports.")
@click.option("--watch", "watched", is_flag=True, help="Draw again while the jobs of RUNS go on, until they end.")
def report(
    runs: tuple[Path, ...], out: Path | None, published: bool | None, noise: Path | None, index: bool, watched: bool
) -> None:
    """Draw tables, plots and the page again from the records of RUNS, folders or archives. Needs no GPU.

    \b
        bench report runs/high_aesthetic
        bench report runs/a runs/b --out reports/both
        bench report runs/high_aesthetic --watch
        bench report runs/high_aesthetic --noise my.noise.json
        bench report --index
        bench report --published
    """
    from bench.records.archive import SUFFIX, run_name
    from bench.report import render_published, render_report

    if index:
        _index(runs, out or Path("reports"), others=bool(published or watched or noise))
        return
    if not (runs or published):
        raise BenchError("name a run folder, e.g. runs/high_aesthetic, or ask for --published")
    if noise and not runs:
        raise BenchError("--noise says how much the scores of runs vary; name a run folder, e.g. runs/high_aesthetic")
    target = out or Path("reports") / ("-".join(map(run_name, runs)) or "published")
    if watched:
        from bench.report.watch import watch

        if not runs or any(run.name.endswith(SUFFIX) for run in runs):
            raise BenchError("--watch follows run folders; name one, e.g. runs/high_aesthetic")
        watch(list(runs), target, published, noise, tell=lambda page: say(f"report: {page}"))
        return
    if runs:
        render_report(list(runs), target, published, noise)
    else:
        render_published(target)
    say(f"report: {target / 'index.html'}")


def _index(runs: tuple[Path, ...], folder: Path, *, others: bool) -> None:
    from bench.report.index import render_index

    if runs or others:
        raise BenchError("--index takes no run and no other option than --out: it reads the reports that are there")
    say(f"index: {render_index(folder)}")


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
