"""Pictures of exposure bias: each measure against the noise level, and over the budget, as differences to the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import figure
from bench.report.exposure import Exposure, Key, Line
from bench.report.intervals import Interval
from bench.report.looks import BASE_LOOK, looks
from bench.report.study import Study
from bench.report.tables import title

LOWEST = 0.1
"""A measure that is weighted by the level has a target that grows as the level vanishes. Below this level a plot would
show nothing else."""

NONE = Interval(0.0, 0.0, 0.0)
"""The base's difference to itself, at which a line over the budget begins."""

Points = tuple[list[float], list[Interval]]
"""Places on the x axis, and what is drawn there."""


def figures(study: Study, found: Exposure) -> dict[str, bytes]:
    """Files of both figures, PNG alone: so many panels as SVG are megabytes, and take as long again to draw."""
    files: dict[str, bytes] = {}
    if found.lines:
        files |= figure.rendered(lambda: against_level(study, found), "exposure", ["png"])
    if found.trained:
        files |= figure.rendered(lambda: over_budget(study, found), "exposure_budget", ["png"])
    return files


def against_level(study: Study, found: Exposure) -> Figure:
    """Each measure against the level at the end of the budget, a line for each method."""

    def points(line: Line, key: Key) -> Points:
        weighted = bool(found.probes[key.probe].get("weight"))
        shown = {s: at for s, at in line.measures[key].levels.items() if s > LOWEST or not weighted}
        return [*shown], [*shown.values()]

    drawn, axes = _panels(study, found, found.last, points, "sigma")
    for axis in axes:
        axis.set_xlim(-0.03, 1.03)
    return _labelled(study, found, drawn, "against the level")


def over_budget(study: Study, found: Exposure) -> Figure:
    """Means over levels against the share of the budget, a line for each method that was trained."""

    def points(line: Line, key: Key) -> Points:
        of_method = [at for at in found.trained if (at.method, at.subset) == (line.method, line.subset)]
        known = [(at.share or 0.0, at.measures[key].mean) for at in of_method if key in at.measures]
        known.sort(key=lambda at: at[0])
        return [0.0, *(share for share, _ in known)], [NONE, *(mean for _, mean in known)]

    ends = [line for line in found.last if line in found.trained]
    drawn, axes = _panels(study, found, ends, points, figure.SPENT)
    for axis in axes:
        figure.spent(axis, max(line.share or 0.0 for line in found.trained))
    return _labelled(study, found, drawn, "over the budget, mean over levels")


def _panels(
    study: Study, found: Exposure, lines: Sequence[Line], points: Callable[[Line, Key], Points], x_label: str
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each subset and measure, and the panels."""
    keys = _shown(found)
    names, crowded = dict.fromkeys([*study.methods, *(line.method for line in found.last)]), _crowded(found)
    drawn_as = looks(names)
    drawn, grid = figure.panels(
        found.subsets, [_heading(found, key) for key in keys], x_label, {line.method for line in lines}, legend=True
    )
    for subset, axes in zip(found.subsets, grid, strict=True):
        for axis, key in zip(axes, keys, strict=True):
            axis.axhline(0, color=BASE_LOOK.colour, linewidth=1.2, linestyle=BASE_LOOK.dashes, zorder=1)
            axis.set_ylabel(
                "ratio to the base, less 1" if found.probes[key.probe].get("relative") else "difference to the base"
            )
            own = [line for line in lines if line.subset == subset and key in line.measures]
            for line, dodge in zip(own, figure.dodges(len(own), crowded), strict=True):
                x, intervals = points(line, key)
                if x:  # few steps may lead to levels alone that are too low to be shown
                    figure.line(axis, x, intervals, drawn_as[line.method])
                    figure.intervals(axis, x, intervals, drawn_as[line.method].colour, dodge)
    figure.legend(drawn, [(name, drawn_as[name]) for name in dict.fromkeys(line.method for line in lines)])
    return drawn, [axis for axes in grid for axis in axes]


def _shown(found: Exposure) -> list[Key]:
    """Each measure at the largest guidance scale that it has."""
    largest = {(key.probe, key.of): key for key in sorted(found.keys, key=lambda key: key.guidance)}
    return [key for key in found.keys if largest[key.probe, key.of] == key]


def _heading(found: Exposure, key: Key) -> str:
    most = max(key.guidance for key in found.keys)
    return found.label(key) + (f", guidance {key.guidance:g}" if key.guidance < most else "")


def _crowded(found: Exposure) -> bool:
    return any(sum(line.subset == subset for line in found.last) > figure.CROWD for subset in found.subsets)


def _labelled(study: Study, found: Exposure, drawn: Figure, what: str) -> Figure:
    scale = max(key.guidance for key in found.keys)
    key = f"difference to the base at guidance {scale:g} · {figure.key(_crowded(found))} over pairs · dashed: the base"
    figure.label(drawn, f"{title(study)}: exposure bias {what}", key, study.experiment.notice)
    return drawn
