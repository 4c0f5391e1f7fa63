"""The scale of a remedy without training, chosen on validation prompts. See ``docs/exposure-bias.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from bench import registry
from bench.errors import BenchError
from bench.report.stats import make_cell
from bench.report.study import StudiedJob, Study, read_study
from bench.sampling.names import AUTO, DIFFERENTIAL, EPSILON, is_auto
from bench.tune import check_prompts
from bench.tune.objective import MEAN, columns_of, gain

if TYPE_CHECKING:
    from bench.evaluate.config import EvaluationConfig
    from bench.experiment.run import Outcome

SCALES: Final[Mapping[str, tuple[float, ...]]] = {
    EPSILON: (1.0, 1.002, 1.005, 1.01, 1.02, 1.05),
    DIFFERENTIAL: (0.0, 0.005, -0.005, 0.02, -0.02, 0.05, -0.05),
}
"""What is tried of a remedy, that with which it does nothing first, and then by distance from it.

Epsilon scaling: around the 1.004 to 1.017 that its public code recommends for 100 steps (forever208/ADM-ES, README).
Differential correction: around the 0.005 of its public code for EDM (AMAP-ML/DCW @ 568261a, ``sample.sh``), of both
signs, since that code has no value for flows. The scale is that of the low band.
"""


Evaluate = Callable[["EvaluationConfig"], "Outcome"]
"""An evaluation, to its end; it keeps what is there."""


def with_scales(config: EvaluationConfig, evaluate: Evaluate, say: Callable[[str], None]) -> Iterator[EvaluationConfig]:
    """An evaluation whose remedies say ``auto``, as one for each model and remedy, with a scale in place of it.

    Each scale of ``SCALES`` is drawn and scored on the validation suite, which is the suite's name with
    ``_validation`` after it. The best has the largest mean gain over ranked columns beside the scale that does
    nothing, in standard deviations of its images (``objective.gain``). Of equal ones the nearest to that is taken. A
    model that cannot be evaluated there has no evaluation here either.

    Args:
        config: ``what`` names single models.
        say: prints a line.

    Raises:
        BenchError: no validation suite, one that shares prompts, or settings with which no scale can be chosen.
    """
    _check(config)
    chosen = tuple(remedy for remedy in config.remedy if not is_auto(remedy))
    if chosen:
        yield config.model_copy(update={"remedy": chosen})
    for what in config.what:
        for name in (remedy.partition("=")[0] for remedy in config.remedy if is_auto(remedy)):
            yield from _chosen(config, what, name, evaluate, say)


def _check(config: EvaluationConfig) -> None:
    validation = _validation(config)
    if validation not in registry.table("suites"):
        raise BenchError(
            f"the suite {config.suite} has no validation suite ({validation}), so no scale of a remedy can be chosen "
            f"on other prompts than those that are reported; name a scale in place of {AUTO}"
        )
    reported, other = (registry.load("suites", name)() for name in (config.suite, validation))
    check_prompts(set(reported.texts()), other.texts(), config.suite, validation)
    if config.passes != "all":
        raise BenchError(f"a scale is chosen by scores, so {AUTO} needs both passes; leave --pass out")
    swept = {
        "--steps": config.steps,
        "--levels": config.levels,
        "--solver": config.solver,
        "--guidance": config.guidance,
    }
    for flag, given in swept.items():
        if given:
            raise BenchError(f"{AUTO} chooses a scale for the suite's own sampler; leave {flag} out, or name a scale")


def _validation(config: EvaluationConfig) -> str:
    return f"{config.suite}_validation"


def _chosen(
    config: EvaluationConfig, what: str, name: str, evaluate: Evaluate, say: Callable[[str], None]
) -> Iterator[EvaluationConfig]:
    texts = [f"{name}={scale:g}" for scale in SCALES[name]]
    trial = {"what": (what,), "suite": _validation(config), "remedy": tuple(texts), "metrics": (), "probes": False}
    outcome = evaluate(config.model_copy(update=trial | {"name": f"{config.run_name}-remedies"}))
    if outcome.failed:
        return
    study = read_study([outcome.folder])
    rows = {job.made["sampler"].get("remedy"): job for job in study.swept if job.made["source"] == what.rstrip("/")}
    gains = _gains(study, [rows[text] for text in texts])
    best = max(gains)
    place, suite = gains.index(best), study.experiment.suite
    if gains.count(best) > 1:
        say(f"{what}: {gains.count(best)} scales of {name} are equally good on {suite.name}; {texts[place]} is taken")
    else:
        say(f"{what}: {texts[place]} is the best on {suite.name}")
    tried = [{"scale": scale, "gain": found} for scale, found in zip(SCALES[name], gains, strict=True)]
    about = {"suite": suite.name, "version": suite.version, "objective": MEAN, "tried": tried}
    yield config.model_copy(update={"what": (what,), "remedy": (texts[place],), "chosen": about})


def _gains(study: Study, rows: Sequence[StudiedJob]) -> list[float]:
    """Of each row beside the first one, in which the remedy does nothing."""
    columns, gains = columns_of(study, ""), []
    for row in rows:
        cells = {metric.name: make_cell([row], 0.0, metric) for metric in columns}
        if short := next((metric for metric in columns if cells[metric.name].estimate is None), None):
            raise BenchError(
                f"{row.label}: {short.label} is {cells[short.name].gap} on {study.experiment.suite.name}, and a scale "
                f"is chosen by all columns; {cells[short.name].remedy or 'the same command tries it again'}"
            )
        gains.append(gain(rows[0], columns, cells))
    return gains
