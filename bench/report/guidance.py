"""A sweep over a setting of the sampler: each metric of each model at each value, as tables and as a plot.

Usually the setting is the scale of classifier-free guidance, and in the code a value on the axis is called a scale.
Numbers of one scale compare with each other, and those of different scales are never ranked together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from matplotlib.figure import Figure

from bench import registry
from bench.records.schema import MetricRecord
from bench.report import conditions, figure, gaps, plots
from bench.report.axis import GUIDANCE, Axis, axis_of, model_of
from bench.report.intervals import Interval
from bench.report.looks import BASE_LOOK, Look, looks
from bench.report.stats import Cell, Difference, against, clear_best, known_trainings, make_cell
from bench.report.study import StudiedJob, Study, twice
from bench.report.tables import TRAINED_ON, bounds, head, interval_text, title, verdict
from bench.report.text import Grid, listed, markdown

CAPTION = (
    "Every model at several scales of classifier-free guidance, on the same prompts and the same noise. At scale 1 "
    "there is no guidance: the conditional branch alone. All other tables are drawn at one scale, so what a model "
    "gains or loses at others shows only here."
)

OTHERWISE = (
    "Every model drawn with several samplers, on the same prompts and the same noise. All other tables are drawn with "
    "the suite's sampler, so what a model gains or loses with others shows only here. Heun's method computes two "
    "velocities a step, and one in the last."
)


@dataclass(frozen=True)
class SweptCell:
    """A metric of one model at one scale; ``to_base`` is the paired difference to the base at that scale."""

    cell: Cell
    to_base: Difference | None = None
    best: bool = False


@dataclass(frozen=True)
class SweptModel:
    """One model at every scale: given weights, or a method with its seeds pooled.

    ``subset`` is empty for what was not trained here, which stands beside the methods of every subset. ``base`` says
    that methods were trained from it.
    """

    name: str
    subset: str
    base: bool
    jobs: Mapping[float, tuple[StudiedJob, ...]]
    reward: str | None
    cells: Mapping[tuple[str, float], SweptCell] = field(default_factory=dict)
    variant: str = ""

    @property
    def seeds(self) -> int:
        """Trainings that it pools."""
        return max(map(len, self.jobs.values()))

    def judged(self, scale: float) -> bool:
        """Whether a difference may be called better or worse: of one training, seed variance is unknown.

        What was not trained here is no training of a method, but a model by itself.
        """
        return not self.subset or len(self.jobs.get(scale, ())) > 1

    @property
    def backbone(self) -> str | None:
        """Hash of the pipeline that it is, or that it was trained from."""
        return next(iter(self.jobs.values()))[0].made.get("backbone_hash")


@dataclass(frozen=True)
class Sweep:
    """Every model of a sweep, by subset; ``unscored`` metrics have no score of any of them and are left out."""

    axis: Axis
    metrics: list[MetricRecord]
    unscored: list[MetricRecord]
    subsets: list[str]
    models: list[SweptModel]
    ranked: bool

    @property
    def scales(self) -> list[float]:
        """Places of the values on the axis."""
        return self.axis.places

    @property
    def caption(self) -> str:
        """What the section shows."""
        return CAPTION if self.axis.setting == GUIDANCE and not self.axis.beside else OTHERWISE

    @property
    def heading(self) -> str:
        """What the section is called."""
        return "Guidance" if self.caption == CAPTION else "Samplers"

    @property
    def file(self) -> str:
        """What its files are called."""
        return "guidance" if self.caption == CAPTION else "sweep"

    def of(self, subset: str) -> list[SweptModel]:
        """The models that stand beside each other for a subset."""
        return [model for model in self.models if model.subset in ("", subset)]

    def looks(self, study: Study) -> dict[str, Look]:
        """How the line of each name is drawn: as in the training dynamics, where those are shown too."""
        found = looks([*study.methods, *(model.name for model in self.models if not model.base)])
        return found | {model.name: BASE_LOOK for model in self.models if model.base}


def sweep(study: Study) -> Sweep:
    """The study's sweep, with every cell computed."""
    axis = axis_of(study.swept, study.experiment.suite.sampler)
    models, scales = _models(study, axis), axis.places
    known = {
        (metric.name, scale): known_trainings(
            [model.jobs[scale] for model in models if model.subset and scale in model.jobs], 0.0, metric
        )
        for metric in study.metrics
        for scale in scales
    }
    computed = [
        replace(
            model,
            cells={
                (metric.name, scale): SweptCell(
                    make_cell(
                        model.jobs.get(scale, ()), 0.0, metric, known[metric.name, scale], trained=bool(model.subset)
                    )
                )
                for metric in study.metrics
                for scale in scales
            },
        )
        for model in models
    ]
    scored = {
        name for model in computed for (name, _), c in model.cells.items() if c.cell.n or c.cell.errors or c.cell.remedy
    }
    metrics = [metric for metric in study.metrics if metric.name in scored] or study.metrics
    bases = {(model.backbone, model.variant): model for model in computed if model.base}
    for of_base, base in bases.items():
        computed = _compared(computed, of_base, base)
    tokens = {study.tokens_of(job) for job in study.swept}
    made = Sweep(
        axis=axis,
        metrics=metrics,
        unscored=[metric for metric in study.metrics if metric not in metrics],
        subsets=list(dict.fromkeys(model.subset for model in computed if model.subset)) or [""],
        models=computed,
        ranked=len(tokens) == 1,
    )
    return replace(made, models=_mark_best(made)) if made.ranked else made


def _models(study: Study, axis: Axis) -> list[SweptModel]:
    jobs_of: dict[tuple[str, ...], dict[float, list[StudiedJob]]] = {}
    for job in study.swept:
        s = job.sweep
        key: tuple[str, ...] = (s["run"], s["method"], s["subset"] or "") if "run" in s else (model_of(job),)
        beside = jobs_of.setdefault((axis.variant(job), *key), {}).setdefault(axis.of(job), [])
        earlier = [other for other in beside if other.sweep.get("seed") == s.get("seed")]
        if earlier and "run" in s:
            raise twice(earlier[0], job, s)
        beside.append(job)
    trained_from = {job.made.get("backbone_hash") for job in study.swept if "run" in job.sweep}
    models = {}
    for (variant, *of_model), jobs in jobs_of.items():
        key = (variant, *of_model)
        first = next(iter(jobs.values()))[0]
        s = first.sweep
        models[key] = SweptModel(
            name=", ".join(filter(None, (s.get("method") or s["name"], variant))),
            subset=s.get("subset") or "",
            base="run" not in s
            and first.made["kind"] == "pipeline"
            and first.made.get("backbone_hash") in trained_from,
            jobs={scale: tuple(sorted(of, key=lambda job: job.sweep.get("seed") or 0)) for scale, of in jobs.items()},
            reward=s.get("reward"),
            variant=variant,
        )
    renamed = [
        replace(model, name=_long_name(key)) if any(_alike(model, other) for other in models.values()) else model
        for key, model in models.items()
    ]
    known = dict.fromkeys((*study.methods, *registry.table("methods")))  # a sweep alone has its folders' order
    order = {method: number for number, method in enumerate(known)}
    return sorted(renamed, key=lambda m: (bool(m.subset), not m.base, order.get(_method(m), len(order))))


def _method(model: SweptModel) -> str:
    return model.name.removesuffix(f", {model.variant}") if model.variant else model.name


def _alike(model: SweptModel, other: SweptModel) -> bool:
    """Whether two models would stand beside each other under one name."""
    return model is not other and model.name == other.name and (model.subset == other.subset or not other.subset)


def _long_name(key: tuple[str, ...]) -> str:
    variant, first, *rest = key
    name = f"{first}: {rest[0]}" if rest else first.partition("--")[2]
    return ", ".join(filter(None, (name, variant)))


def _compared(models: list[SweptModel], of_base: tuple[str | None, str], base: SweptModel) -> list[SweptModel]:
    """Models with their differences to their base: those of a metric and a scale on a subset are a family."""
    cells = [dict(model.cells) for model in models]
    own = [model is not base and (model.backbone, model.variant) == of_base for model in models]
    for at, start in base.cells.items():
        for subset in dict.fromkeys(model.subset for model in models):
            family = [
                (of_model, e)
                for model, of_model, ours in zip(models, cells, own, strict=True)
                if ours and model.subset == subset and (e := of_model[at].cell.estimate)
            ]
            if start.cell.estimate:
                found = against(start.cell.estimate, [e for _, e in family])
                for (of_model, _), to_base in zip(family, found, strict=True):
                    of_model[at] = replace(of_model[at], to_base=to_base)
    return [replace(model, cells=of_model) for model, of_model in zip(models, cells, strict=True)]


def _mark_best(made: Sweep) -> list[SweptModel]:
    """The clear best of each metric at each scale among the models of each subset."""
    best: set[tuple[str, str, str, float]] = set()
    for subset in made.subsets:
        for variant in dict.fromkeys(model.variant for model in made.models):
            models = [model for model in made.of(subset) if model.variant == variant]
            for metric in (m for m in made.metrics if m.ranked):
                for scale in made.scales:
                    at = (metric.name, scale)
                    rivals = [
                        m
                        for m in models
                        if m.judged(scale) and m.reward != metric.name and not (m.base and metric.per_prompt)
                    ]
                    winner = clear_best([m.cells[at].cell.estimate for m in rivals], metric.higher_is_better)
                    if winner is not None:
                        best.add((rivals[winner].name, subset, *at))
    # What was not trained here stands beside every subset, and is bold only where it is best beside all of them.
    return [
        replace(
            model,
            cells={
                at: replace(c, best=all((model.name, subset, *at) in best for subset in _beside(made, model)))
                for at, c in model.cells.items()
            },
        )
        for model in made.models
    ]


def _beside(made: Sweep, model: SweptModel) -> list[str]:
    return [model.subset] if model.subset else made.subsets


def grids(made: Sweep, best: str) -> list[Grid]:
    """A table for each subset and metric: a row for each model, a column for each scale.

    Args:
        best: a format string for the best value of its scale.
    """
    several = any(model.seeds > 1 for model in made.models)
    own = made.axis.own_place
    scales = [made.axis.label(scale) + (" (the suite's)" if scale == own else "") for scale in made.scales]
    tables = []
    for subset in made.subsets:
        for metric in made.metrics:
            first = f"{metric.heading}, {subset}" if subset and len(made.subsets) > 1 else metric.heading
            rows = [
                [model.name + (" †" if model.reward == metric.name else "")]
                + ([str(model.seeds) if model.subset else "–"] if several else [])
                + [_text(metric, model, scale, best) for scale in made.scales]
                for model in made.of(subset)
            ]
            tables.append(Grid([first, *(["Seeds"] if several else []), *scales], rows))
    return tables


def _text(metric: MetricRecord, model: SweptModel, scale: float, best: str) -> str:
    c = model.cells[metric.name, scale]
    if c.cell.estimate is None:
        return c.cell.gap if c.cell.total else "–"
    value = metric.text(c.cell.estimate.mean)
    mark = _mark(metric, c.to_base) if model.judged(scale) else ""
    return f"{best.format(value) if c.best else value} {interval_text(metric, c.cell.estimate)}{mark}"


def _mark(metric: MetricRecord, to_base: Interval | None) -> str:
    """Where a model differs from the base: ▲ better, ▼ worse; of what is not ranked, ↑ higher and ↓ lower."""
    if to_base is None or not to_base.excludes_zero:
        return ""
    if not metric.ranked:
        return " ↑" if to_base.mean > 0 else " ↓"
    return verdict(metric, to_base)


def notes(study: Study, made: Sweep) -> list[str]:
    """Sentences under the tables; marks that do not occur are not explained."""
    cells = [(model.judged(scale), c) for model in made.models for (_, scale), c in model.cells.items()]
    alone = [model.name for model in made.models if not all(map(model.judged, model.jobs))]
    lines = [
        "Mean with its 95 % interval for this prompt list: the prompts are fixed, and noise and trainings vary.",
        f"The suite's own scale is {made.axis.own:g}: the numbers of other tables were drawn with that one."
        if made.caption == CAPTION
        else "▲, ▼, ★ and differences to the base are among models that were drawn with the same sampler.",
    ]
    if alone:
        lines.append(
            f"Seed variance unknown for {listed([*dict.fromkeys(alone)])}: with one seed, an interval does not cover "
            "how much a second training run would differ. There it is not ranked, and no difference of it is marked."
        )
    if any(judged and c.to_base and c.to_base.excludes_zero for judged, c in cells):
        lines.append(
            "▲ better or ▼ worse than the base at the same scale, and ↑ higher or ↓ lower where neither is better: the "
            "95 % interval of the paired difference excludes zero. The intervals of all models of a subset at one "
            "scale hold together in 95 % of cases."
        )
    if any(c.best for _, c in cells):
        lines.append(
            "Bold (★ on the page) is the best at its scale where the intervals of its paired differences to all others "
            "exclude zero together. Scales are not ranked against each other."
        )
    if not made.ranked:
        lines.append("Models that read different numbers of T5 tokens are not ranked.")
    shown = {metric.name for metric in made.metrics}
    if any(model.reward in shown for model in made.models):
        lines.append(TRAINED_ON)
    drift = [metric.label for metric in made.metrics if not metric.ranked]
    if drift:
        lines.append(f"{listed(drift)}: neither direction is better; what tells is how far a line is from the base's.")
    if made.unscored:
        lines.append(f"Not scored for any of these: {listed([metric.label for metric in made.unscored])}.")
    return lines + gaps.lines(
        (f"{model.name} at {scale:g}", metric.label, model.cells[metric.name, scale].cell)
        for model in made.models
        for metric in made.metrics
        for scale in made.scales
    )


def guidance_markdown(study: Study, made: Sweep, differing: str) -> str:
    """The tables with their caption and notes.

    Args:
        differing: what ``swept_pairs.markdown`` says of the methods' differences.
    """
    tables = "\n".join(grid.markdown() for grid in grids(made, "**{}**"))
    remarks = "".join(f"- {markdown(line)}\n" for line in notes(study, made))
    top, end = f"{head(study, made.heading)}{made.caption}", conditions.grid(study).markdown()
    return f"{top}\n\n{tables}\n{remarks}\n{differing}## Conditions\n\n{end}"


def guidance_csv(made: Sweep) -> str:
    """Full-precision numbers, one line for each model, metric and scale; what is not there is left empty."""
    headers = ["subset", "model", "seeds", "metric", "prompt_set", made.axis.setting, "of_the_suite", "mean", "low"]
    headers += ["high", "n", "N", "minus_base", "minus_base_low", "minus_base_high", "trained_on", "best"]
    rows = []
    for model in made.models:
        for metric in made.metrics:
            for scale in made.scales:
                c = model.cells[metric.name, scale]
                line = [model.subset, model.name, str(model.seeds if model.subset else ""), metric.name]
                value = str(made.axis.values[made.scales.index(scale)])
                own = str(int(scale == made.axis.own_place))
                line += [metric.prompt_set, value, own, *bounds(c.cell.estimate)]
                line += [str(c.cell.n), str(c.cell.total), *bounds(c.to_base)]
                rows.append([*line, str(int(model.reward == metric.name)), str(int(c.best))])
    return Grid(headers, rows).csv()


def samples(study: Study, made: Sweep, subset: str) -> bytes | None:
    """A block for each task: a row per model (its first seed), a column per scale, one noise for all."""
    return plots.sheet(study, samples_parts(study, made, subset))


def samples_parts(study: Study, made: Sweep, subset: str) -> list[plots.Part]:
    """What ``samples`` shows."""
    drawn_as, models = made.looks(study), made.of(subset)
    firsts = [
        [model.jobs[scale][0].at(0.0) if scale in model.jobs else None for scale in made.scales] for model in models
    ]
    lines = [
        plots.Line(model.name, drawn_as[model.name].colour, [(evaluation, 0) for evaluation in evaluations])
        for model, evaluations in zip(models, firsts, strict=True)
    ]
    columns = [made.axis.label(scale) for scale in made.scales]
    jobs = [job for model in models for of in model.jobs.values() for job in of]
    return plots.parts_of(jobs, lambda prompt: (lines, columns))


def guidance_figures(study: Study, made: Sweep) -> dict[str, bytes]:
    """Files of a figure with a panel for each subset and metric, and a line for each model."""
    return figure.rendered(lambda: _draw(study, made), made.file)


def _draw(study: Study, made: Sweep) -> Figure:
    drawn_as = made.looks(study)
    crowded = max(len(made.of(subset)) for subset in made.subsets) > figure.CROWD
    headings, names = [metric.heading for metric in made.metrics], [model.name for model in made.models]
    drawn, grid = figure.panels(made.subsets, headings, made.axis.title, names, legend=crowded)
    own = made.axis.own_place
    for subset, axes in zip(made.subsets, grid, strict=True):
        for axis, metric in zip(axes, made.metrics, strict=True):
            if own is not None and made.scales[0] <= own <= made.scales[-1]:
                axis.axvline(own, color=figure.FAINT, linewidth=1.5, linestyle=(0, (1, 1.5)), zorder=1)
            ends = []
            models = made.of(subset)
            for model, dodge in zip(models, figure.dodges(len(models), crowded), strict=True):
                estimates = [model.cells[metric.name, scale].cell.estimate for scale in made.scales]
                x, y = figure.line(axis, made.scales, estimates, drawn_as[model.name])
                figure.intervals(axis, made.scales, estimates, drawn_as[model.name].colour, dodge)
                if x == x:  # NaN where nothing is scored
                    ends.append(figure.LineEnd(x, y, model.name, drawn_as[model.name], model.reward == metric.name))
            axis.set_xticks(made.scales, made.axis.ticks)
            figure.name_ends(axis, ends, crowded=crowded)
    if crowded:
        figure.legend(drawn, [(name, drawn_as[name]) for name in dict.fromkeys(model.name for model in made.models)])
    key = figure.key(crowded)
    if made.caption == CAPTION:
        key += f" · dotted: the suite's scale, {made.axis.own:g} · 1: no guidance"
    elif own is not None:
        key += " · dotted: the suite's"
    if any(model.base for model in made.models):
        key += " · dark and dashed: base"
    if any(model.reward in {metric.name for metric in made.metrics} for model in made.models):
        key += " · †: the method was trained on this metric"
    figure.label(drawn, f"{title(study)}: each metric against {made.axis.noun}", key, study.experiment.notice)
    return drawn
