"""How the methods of a sweep differ from each other at each of its values: paired, on the same prompts and noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.records.schema import MetricRecord
from bench.report.guidance import Sweep, SweptModel
from bench.report.stats import Difference, family
from bench.report.tables import bounds, difference_text, verdict
from bench.report.text import Grid


def compared(made: Sweep) -> list[list[SweptModel]]:
    """The methods that stand beside each other: of one subset, drawn with the same other settings; two or more."""
    methods = [model for model in made.models if model.subset]
    groups = dict.fromkeys((model.subset, model.variant) for model in methods)
    found = [[model for model in methods if (model.subset, model.variant) == group] for group in groups]
    return [group for group in found if len(group) > 1]


def file_of(made: Sweep) -> str:
    """What the file of all pairs is called."""
    return f"{made.file}_differences.csv"


def grids(made: Sweep) -> list[Grid]:
    """For each group and metric, every method minus the first one: a row for each, a column for each scale."""
    groups = compared(made)
    tables = []
    for first, *others in groups:
        for metric in made.metrics:
            at = {scale: _minus(metric, scale, first, others) for scale in made.scales}
            rows = [
                [model.name, *(_text(made, metric, scale, (model, first), at[scale][i]) for scale in made.scales)]
                for i, model in enumerate(others)
            ]
            of = f", {first.subset}" if len(made.subsets) > 1 else ""
            tables.append(Grid([f"{metric.heading}, minus {first.name}{of}", *map(made.axis.label, made.scales)], rows))
    return tables


def notes(made: Sweep, tables: Sequence[Grid]) -> list[str]:
    """How to read the ``grids``, without marks that do not occur; none where no two methods stand beside each other."""
    if not tables:
        return []
    lines = [
        "Each method minus the first one, at the same scale, for this prompt list. The intervals of all methods minus "
        f"one, in one metric and at one scale, hold together in 95 % of cases. {file_of(made)} has every pair."
    ]
    cells = [cell for grid in tables for row in grid.rows for cell in row[1:]]
    if any(cell.endswith(("▲", "▼")) for cell in cells):
        lines.append("▲ better or ▼ worse than the first one: the interval excludes zero.")
    if any(cell.endswith("†") for cell in cells):
        lines.append("A difference with † is not called better or worse: one of the two was trained on the metric.")
    return lines


def markdown(made: Sweep) -> str:
    """A section with the tables and how to read them; empty where no two methods stand beside each other."""
    tables = grids(made)
    if not tables:
        return ""
    remarks = "".join(f"- {note}\n" for note in notes(made, tables))
    return "## Differences\n\n" + "\n".join(grid.markdown() for grid in tables) + f"\n{remarks}\n"


def csv(made: Sweep) -> str:
    """Every pair of methods, metric and scale, in seven digits; empty where a cell is incomplete.

    ``low`` and ``high`` hold together with the family of all methods minus ``minus``. ``pairwise`` is of the pair
    alone.
    """
    headers = ["subset", "method", "minus", "metric", made.axis.setting, "difference", "low", "high", "family"]
    headers += ["pairwise_low", "pairwise_high"]
    return Grid(headers, [line for group in compared(made) for line in _lines(made, group)]).csv()


def _lines(made: Sweep, group: Sequence[SweptModel]) -> Iterator[list[str]]:
    for place, earlier in enumerate(group):
        later = group[place + 1 :]  # a line says what the later one adds
        others = [*later, *group[:place]]
        for metric in made.metrics:
            for scale, value in zip(made.scales, made.axis.values, strict=True):
                found = _minus(metric, scale, earlier, others)
                for model, difference in zip(later, found[: len(later)], strict=True):
                    yield [model.subset, model.name, earlier.name, metric.name, str(value), *_numbers(difference)]


def _numbers(found: Difference | None) -> list[str]:
    if found is None:
        return [""] * 6
    return [*bounds(found), str(found.family), *bounds(found.pairwise)[1:]]


def _minus(
    metric: MetricRecord, scale: float, control: SweptModel, others: Sequence[SweptModel]
) -> list[Difference | None]:
    at = metric.name, scale
    return family(control.cells[at].cell.estimate, [model.cells[at].cell.estimate for model in others])


def _text(
    made: Sweep, metric: MetricRecord, scale: float, models: Sequence[SweptModel], found: Difference | None
) -> str:
    mark = " †" if any(model.reward == metric.name for model in models) else ""
    if found is None:
        return "–" + mark
    judged = made.ranked and not mark and all(model.judged(scale) for model in models)
    return f"{difference_text(metric, found)}{mark}{verdict(metric, found) if judged else ''}"
