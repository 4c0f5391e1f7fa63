"""The report: tables, plots and one page, drawn from what runs left behind."""

from __future__ import annotations

from pathlib import Path

from bench import records

__all__ = ["render_report"]


def render_report(runs: list[Path], out: Path) -> list[Path]:
    """Draw the report of one or more run folders into ``out`` and return what was written.

    Several runs are merged; BenchError where they are not comparable or a record is damaged. Equal records give equal
    bytes: nothing here depends on the time, the machine or what ``out`` held before.
    """
    from bench.report import page, plots, tables  # here, since a training process reads records but never plots
    from bench.report.read import read_study

    study = read_study(runs)
    sections = tables.main_sections(study)
    lines = plots.dynamics(study)
    png, svg = plots.dynamics_figures(study, lines)
    samples = {subset: picture for subset in study.subsets or [""] if (picture := plots.samples_image(study, subset))}
    files: dict[str, str | bytes] = {
        "main_results.md": tables.main_markdown(study, sections),
        "main_results.csv": tables.main_csv(study, sections),
        "main_results.tex": tables.main_tex(study, sections),
        "paradigms.md": tables.paradigms_markdown(study),
        "compute.md": tables.compute_markdown(study),
        "compute.csv": tables.compute_csv(study),
        "training_dynamics.png": png,
        "training_dynamics.svg": svg,
        "training_dynamics.csv": plots.dynamics_csv(study, lines),
        "index.html": page.page(study, sections, svg, samples),
    }
    for number, (subset, picture) in enumerate(samples.items()):
        files["samples.png" if number == 0 else f"samples-{subset}.png"] = picture
    for name, content in files.items():
        records.write_bytes(out / name, content.encode() if isinstance(content, str) else content)
    return [out / name for name in files]
