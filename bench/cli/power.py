"""``bench power`` and ``bench noise``: what it takes to see a difference, and how much the scores of a suite vary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import types
from bench.cli.printing import say

if TYPE_CHECKING:
    from bench.records.schema import MetricRecord
    from bench.report.power import Costs, Design
    from bench.report.seed_noise import MetricNoise, NoiseFile

SHARE = types.Number(min=0.5, max=0.999)
METHODS = click.option(
    "--methods", callback=types.names, help="Measure the rows of these alone, with commas between; default all."
)


@click.command()
@click.argument("runs", type=types.PATH, nargs=-1, required=True)
@click.option(
    "--difference", type=types.Number(min=0, min_open=True), required=True, help="To be seen, in the metric's unit."
)
@click.option("--metric", help="Name or label; default the first one that is ranked and grouped, else ranked.")
@METHODS
@click.option("--power", type=SHARE, default=0.8, show_default=True, help="Chance to see it if it is there.")
def power(
    runs: tuple[Path, ...], difference: float, metric: str | None, methods: tuple[str, ...] | None, power: float
) -> None:
    """Say which seeds, prompts and pictures see a difference of two methods, and what they cost on this machine.

    Variances and times come from RUNS: run folders, or archives of `bench archive`, with several seeds. A folder of
    `bench evaluate RUN --repeats 2` tells noise from prompts. The run beside it says what a training costs.

    \b
        bench power runs/embedded --difference 0.03 --methods sft,soar
        bench power reports/reference/embedded/records.tar.xz --difference 0.1 --metric aesthetic
        bench power runs/embedded runs/evaluate-embedded-repeats-2 --difference 0.03
    """
    from bench.errors import BenchError
    from bench.records.archive import unpacked
    from bench.report import power as needed
    from bench.report.study import read_studies

    with unpacked(list(runs)) as folders:
        studies = read_studies(folders)
    study = studies[0]
    ranked = [column for column in study.metrics if column.ranked] or study.metrics
    column = needed.metric_of(study, metric) if metric else next((m for m in ranked if m.grouped), ranked[0])
    file = needed.measure(studies, methods or ())
    noise = file.metrics.get(column.name)
    if noise is None:
        raise BenchError(f"nothing is known of {column.label}: {needed.lacking(studies, methods or ())[column.name]}")
    if noise.low is not None and noise.high is not None and difference >= noise.high - noise.low:
        raise BenchError(
            f"a difference of {difference:g} is none of {column.label}, whose scores lie between {noise.low:g} and "
            f"{noise.high:g}; name a smaller --difference"
        )
    for line in _lines(column, file, noise, needed.costs(studies, methods or ()), difference, power):
        say(line)


def _lines(
    column: MetricRecord, file: NoiseFile, noise: MetricNoise, costs: Costs | None, difference: float, power: float
) -> list[str]:
    from bench.report import power as needed
    from bench.report.intervals import smallest
    from bench.report.text import count, duration

    def described(design: Design) -> str:
        pictures = f"{design.seeds} seeds x {design.prompts} prompts x {design.repeats} pictures"
        return f"{pictures}: {duration(costs.of(design))}" if costs else pictures

    size, wanted = sum(noise.groups), column.text(difference)
    choices = needed.pictures_of(column, noise)
    lines = [
        f"{column.label}: a difference of {wanted} of two methods, {power:.0%} power, measured on {file.about}",
        f"  a training takes {duration(costs.training)}, a picture {costs.picture:.2f} s without its scores"
        if costs
        else "  no job holds a clock reading, so costs are unknown; name the run that trained too",
        f"  this prompt list ({size} prompts in {len(noise.groups)} groups):",
    ]
    designs = list(needed.designs(noise, difference, power, choices))
    if costs:
        designs.sort(key=costs.of)
    cheapest = " (cheapest)" if costs else ""
    lines += [f"    {described(design)}{'' if n else cheapest}" for n, design in enumerate(designs[:5])]
    most = needed.Design(needed.SEEDS[-1], size, choices[-1])
    if not designs:
        least = smallest(needed.variance(noise, most), power)
        lines.append(f"    no design does; {described(most)} see {column.text(least)}")
    seeds, repeats = (designs[0].seeds, designs[0].repeats) if designs else (most.seeds, most.repeats)
    prompts = needed.prompts_needed(noise, difference, power, seeds, repeats)
    if prompts is None:
        lines.append(f"  prompts like these: with {seeds} seeds no number of prompts does; more seeds may")
    else:
        lines.append(f"  prompts like these: {count(prompts)} prompts, with {seeds} seeds x {repeats} pictures")
    if noise.repeats == 1 and not column.per_prompt:
        lines.append("  these runs drew one picture a prompt, so noise counts as a part of the prompt")
    return lines


@click.command()
@click.argument("runs", type=types.PATH, nargs=-1, required=True)
@METHODS
@click.option("--out", type=types.PATH, help="File to write; default beside the suite's own file, if none is there.")
def noise(runs: tuple[Path, ...], methods: tuple[str, ...] | None, out: Path | None) -> None:
    """Measure how much the scores of a suite vary, from reference RUNS with several seeds, into its noise file.

    Reports with one seed take their seed variance from that file, if suite, version and backbone are the same. A folder
    of `bench evaluate RUN --repeats 2` tells noise from prompts where the suite draws one picture a prompt.

    \b
        bench noise runs/mine --out mine.noise.json && bench report runs/once --noise mine.noise.json
        bench evaluate runs/mine --repeats 2
        bench noise runs/mine runs/evaluate-embedded-repeats-2 --out mine.noise.json
    """
    from bench.errors import BenchError
    from bench.records import write_record
    from bench.records.archive import unpacked
    from bench.report.power import lacking, measure
    from bench.report.seed_noise import beside
    from bench.report.study import read_studies
    from bench.report.text import listed

    with unpacked(list(runs)) as folders:
        studies = read_studies(folders)
    file = measure(studies, methods or ())
    target = out or beside(file.suite)
    if target is None:
        raise BenchError(f"the suite {file.suite} is not registered here; name a file with --out")
    if not out and target.exists():
        raise BenchError(f"{target} is there already, for every report of the suite; name it, or another, with --out")
    write_record(target, file)
    say(f"noise file: {target}, measured on {file.about}")
    columns, reasons = studies[0].metrics, lacking(studies, methods or ())
    images = {c.name: max(m.images for s in studies for m in s.metrics if m.name == c.name) for c in columns}
    once = [c.label for c in columns if (noise := file.metrics.get(c.name)) and images[c.name] == sum(noise.groups)]
    if once:
        say(
            f"{listed(once)}: one picture a prompt, so noise cannot be told from prompts. It counts as a part of them, "
            "and intervals are on the safe side. `bench evaluate RUN --repeats 2` draws two; name its folder too"
        )
    for column in columns:
        if reason := reasons.get(column.name):
            say(f"{column.label}: not in the file, since {reason}")
