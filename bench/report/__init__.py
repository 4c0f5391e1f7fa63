"""The report: tables, plots and one page, drawn from what runs left behind; and the paper's numbers alone."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench import records
from bench.errors import shown
from bench.records import atomic

if TYPE_CHECKING:
    from bench.report.exposure_part import ExposurePart
    from bench.report.plots import Curves
    from bench.report.published.compare import Comparison
    from bench.report.study import Study
    from bench.report.tables import Section

__all__ = ["is_of_a_report", "render_published", "render_report", "shown_images"]

_NAMES = {
    *("index.html", "main_results.md", "main_results.csv", "main_results.tex", "paradigms.md"),
    *("compute.md", "compute.csv", "differences.md", "differences.csv", "published.md", "published.csv"),
    *("training_dynamics.png", "training_dynamics.svg", "training_dynamics.csv"),
    *("guidance.md", "guidance.csv", "guidance.png", "guidance.svg", "guidance_differences.csv"),
    *("exposure.md", "exposure.csv", "exposure.png", "exposure.svg", "exposure_budget.png", "exposure_budget.svg"),
    *("sweep.md", "sweep.csv", "sweep.png", "sweep.svg", "sweep_differences.csv"),
    *("wins.md", "wins.csv", "targets.md", "targets.csv", "pareto.md", "pareto.csv"),
    *("own_scales.md", "own_scales.csv", "same_method.md", "same_method.csv"),
}
_SAMPLES = re.compile(r"samples(-guidance|-sweep)?(-[^/]+)?\.png|pictures/[^/]+\.webp")


def is_of_a_report(name: str) -> bool:
    """Whether a report may leave a file of this name: ``samples-<subset>.png`` and the like, or a fixed name.

    Args:
        name: of the file below the report's folder, as ``pictures/sft--all--s0-100-0.webp``.
    """
    return name in _NAMES or _SAMPLES.fullmatch(name) is not None


def render_report(runs: list[Path], out: Path, published: bool | None = None, noise: Path | None = None) -> list[Path]:
    """Draw the report of one or more run folders into ``out`` and return its files, without the pictures of the page.

    Several runs are merged; BenchError where they are not comparable or a record is damaged. Equal records give equal
    bytes: nothing here depends on the time, the machine or what ``out`` held before. Where nothing was trained there
    are neither dynamics nor paradigms nor costs. Files that an older report left in ``out`` and this one has not are
    removed (``is_of_a_report``); others stay.

    Args:
        runs: run folders, or archives of ``bench archive``.
        noise: a file of `bench noise` that takes the place of the suite's own. BenchError where it is of another suite
            or backbone.
        published: whether to set the rows beside the paper's, apart from every ranking; by default where the suite
            follows the paper's protocol. Under another suite the section says that nothing compares.
    """
    from bench.records.archive import unpacked
    from bench.report.exposure_part import beside  # here: a training process never plots

    with _no_collections(), unpacked(runs) as folders, beside(folders) as biased:
        written = _write(_drawn(folders, noise, published, biased), out)
    for path in [*out.iterdir(), *out.glob("*/*")]:
        if path not in written and path.is_file() and is_of_a_report(path.relative_to(out).as_posix()):
            path.unlink()
    return [path for path in written if path.parent == out]


@contextmanager
def _no_collections() -> Iterator[None]:
    """Context in which Python looks for no cycles of garbage: it would look through all records again and again.

    To read the 43,928 samples of the embedded comparison takes 2.0 s of CPU instead of 3.6.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _drawn(
    runs: list[Path], noise: Path | None, published: bool | None, biased: Callable[[Study], ExposurePart]
) -> dict[str, str | bytes]:
    """The files of run folders. All that was read is let go of at its end, before anything looks for garbage."""
    from bench.report.seed_noise import given
    from bench.report.study import read_study

    study = read_study(runs)
    if noise is not None:
        study = replace(study, given=given(noise, study.experiment))
    return _files(study, published, biased)


def _files(study: Study, published: bool | None, biased: Callable[[Study], ExposurePart]) -> dict[str, str | bytes]:
    """Names and contents of a report. ``biased`` gives the part on exposure bias, and is asked as late as can be."""
    from bench.report import (
        differences,
        guidance,
        own_scales,
        paradigms,
        plots,
        same_method,
        swept_pairs,
        tables,
    )
    from bench.report.page import document
    from bench.report.pairs import pairs
    from bench.report.published.compare import SUITES, compare, comparison_csv, comparison_markdown

    sections = tables.main_sections(study) if study.tabled else []
    files: dict[str, str | bytes] = {}
    if study.tabled:
        files = {
            "main_results.md": tables.main_markdown(study, sections),
            "main_results.csv": tables.main_csv(study, sections),
            "main_results.tex": tables.main_tex(study, sections),
        }
    curves = study.of_every_evaluation()
    lines = plots.dynamics(curves) if study.jobs else {}
    if study.jobs:
        files |= {
            "paradigms.md": paradigms.paradigms_markdown(study),
            "compute.md": tables.compute_markdown(study),
            "compute.csv": tables.compute_csv(study),
            "training_dynamics.csv": plots.dynamics_csv(curves, lines),
            **plots.dynamics_figures(curves, lines),
        }
    paired = [pairs(section) for section in sections]
    parted = same_method.parted(study)
    rates = same_method.rates(study, parted)
    differing = differences.differences(study, sections, paired, rates)
    if differing:
        files |= {
            "differences.md": differences.markdown(study, differing),
            "differences.csv": differences.csv(study, sections, paired),
        }
    if parted:
        files |= {"same_method.md": same_method.markdown(study, parted), "same_method.csv": same_method.csv(parted)}
    swept = None
    if study.swept:
        sweep = guidance.sweep(study)
        shown = {subset: picture for subset in sweep.subsets if (picture := guidance.samples(study, sweep, subset))}
        sheets = _numbered(f"samples-{sweep.file}", shown)
        swept = document.SweptPart(sweep, dict(zip(shown, sheets, strict=True)))
        files |= {
            f"{sweep.file}.md": guidance.guidance_markdown(study, sweep, swept_pairs.markdown(sweep)),
            f"{sweep.file}.csv": guidance.guidance_csv(sweep),
            **guidance.guidance_figures(study, sweep),
            **sheets,
        }
        if swept_pairs.compared(sweep):
            files[swept_pairs.file_of(sweep)] = swept_pairs.csv(sweep)
        if own := own_scales.own_scales(study, sweep):
            files |= {
                "own_scales.md": own_scales.own_scales_markdown(study, sweep, own),
                "own_scales.csv": own_scales.own_scales_csv(sweep, own),
            }
    comparison = None
    if study.tabled and (study.experiment.suite.name in SUITES if published is None else published):
        comparison = compare(study, sections)
        files["published.md"] = comparison_markdown(study, comparison)
        files |= {"published.csv": comparison_csv(comparison)} if comparison.pairs else {}
    files |= _answers(study, curves, sections, lines, comparison) if differing else {}
    parts = {subset: plots.samples_parts(study, subset) for subset in study.subsets or [""]}
    samples = {subset: picture for subset, of in parts.items() if (picture := plots.sheet(study, of))}
    kept = plots.images_of([part for of in parts.values() for part in of])
    sheets = _numbered("samples", samples)
    names = dict(zip(samples, sheets, strict=True))
    bias = cache(lambda: biased(study))
    made = document.Parts(sections, paired, lines, names, differing, rates, comparison, swept, lambda: bias().found)
    page = document.page(study, made, kept)
    return files | bias().files | page | sheets


def _answers(
    study: Study, curves: Study, sections: Sequence[Section], lines: Curves, comparison: Comparison | None
) -> dict[str, str | bytes]:
    """What the records say beyond means: of two methods or more."""
    from bench.report import pareto, targets, wins

    tallies, reaches = wins.wins(study, sections), targets.targets(curves, lines, comparison)
    found = pareto.fronts(study, sections)
    return {
        "wins.md": wins.wins_markdown(study, tallies),
        "wins.csv": wins.wins_csv(tallies),
        "targets.md": targets.targets_markdown(curves, reaches),
        "targets.csv": targets.targets_csv(study, reaches),
        "pareto.md": pareto.pareto_markdown(study, found),
        "pareto.csv": pareto.pareto_csv(found),
    }


def shown_images(run: Path) -> tuple[set[Path], dict[Path, str | None]]:
    """Files of the images on the sheets of a run's report; and of all others that its page shows, with their hashes.

    BenchError where a record of the run is damaged.
    """
    from bench.report import guidance, plots
    from bench.report.page import browser
    from bench.report.study import read_study

    study = read_study([run])
    parts = [part for subset in study.subsets or [""] for part in plots.samples_parts(study, subset)]
    if study.swept:
        sweep = guidance.sweep(study)
        parts += [part for subset in sweep.subsets for part in guidance.samples_parts(study, sweep, subset)]
    sheets = plots.images_of(parts)
    return sheets, {path: sha256 for path, sha256 in browser.final_images(study).items() if path not in sheets}


def _numbered(name: str, pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    """Files of pictures, in the order of their subsets; only those after the first name their subset."""
    return {
        f"{name}.png" if number == 0 else f"{name}-{subset}.png": picture
        for number, (subset, picture) in enumerate(pictures.items())
    }


def render_published(out: Path) -> list[Path]:
    """Write the paper's Tables 2 and 3 and the end points of its Figure 3 into ``out``; needs no run."""
    from bench.report.published import alone

    return _write(alone.files(), out)


def _write(contents: Mapping[str, str | bytes], out: Path) -> list[Path]:
    atomic.sweep(out)
    for name, content in contents.items():
        # Names and prompts are a stranger's: a terminal that shows a report must not obey them.
        data = shown(content, keep="\n\t").encode() if isinstance(content, str) else content
        records.write_bytes(out / name, data)
    return [out / name for name in contents]
