"""The scale of classifier-free guidance of each row, chosen on validation prompts. Nothing is trained for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from bench.evaluate.config import EvaluationConfig, read_evaluation
from bench.records.schema import identity
from bench.report.stats import make_cell
from bench.report.study import Study, read_job
from bench.report.text import Grid
from bench.tune.objective import columns_of, gain

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.run import Outcome

    Sweep = Callable[[Sequence[Path], Sequence[float]], Outcome]
    """Draws and scores the weights of jobs at each scale on the validation prompts. Those ``failed`` by their path."""

SCALES = (1.0, 2.0, 3.0, 4.5, 7.0)
"""What is tried, and the suite's own scale with it.

1 is no guidance. 4.5 is the SOAR paper's (section 3.1). 7 is the default of diffusers' ``StableDiffusion3Pipeline``.
The others lie between.
"""


def sweep_of(config: ExperimentConfig, jobs: Sequence[Path], scales: Sequence[float]) -> EvaluationConfig:
    """The evaluation that draws jobs of a tuning at each scale. BenchError for what no evaluation can be."""
    same = ("suite", "prompts", "revision", "offline", "dtype", "max_sequence_length", "evaluation_batch")
    about = {"what": tuple(map(str, jobs)), "guidance": tuple(scales), "name": f"{config.run_name}-guidance"}
    return read_evaluation({key: getattr(config, key) for key in same} | about)


@dataclass(frozen=True)
class Scales:
    """The objective of a row's model at each scale. None where a score is missing."""

    row: str
    own: float
    gains: Mapping[float, float | None]

    @property
    def best(self) -> float | None:
        """The best scale; of equal ones the nearest to ``own``, which is the suite's. None where none is whole."""
        known = [(gained, -abs(scale - self.own), scale) for scale, gained in self.gains.items() if gained is not None]
        return max(known)[2] if known else None


def scales_of(row: str, jobs: Sequence[Path], swept: Study, scales: Sequence[float], objective: str) -> Scales:
    """Score a row's jobs at each scale: the mean over its subsets of ``objective.gain``.

    The base is that of the trials, at the suite's scale. So all scales are held against the same, and in one unit.

    Args:
        jobs: folders of the jobs that were swept, one for each subset.
        swept: the run of the sweep.
    """
    trained = [(read_job(folder), identity(folder.name)) for folder in jobs]
    gains: dict[float, float | None] = {}
    for scale in scales:
        found = [_gain(*of, swept, scale, objective) for of in trained]
        whole = [value for value in found if value is not None]
        gains[scale] = fmean(whole) if len(whole) == len(found) else None
    return Scales(row, swept.experiment.suite.sampler.guidance_scale, gains)


def _gain(trained: Study, which: tuple[str, str, int], swept: Study, scale: float, objective: str) -> float | None:
    columns = columns_of(trained, objective)
    for job in swept.swept:
        of = tuple(job.sweep.get(key) for key in ("method", "subset", "seed"))
        if of == which and abs(job.guidance_scale - scale) < 1e-9:
            cells = {metric.name: make_cell([job], 0.0, metric) for metric in columns}
            if any(cell.estimate is None for cell in cells.values()):
                return None
            assert trained.base is not None
            return gain(trained.base, columns, cells)
    return None


def scales_csv(made: Sequence[Scales]) -> str:
    """Every row and scale in full precision; the objective is empty where a score is missing."""
    lines = [
        [each.row, repr(scale), "" if value is None else repr(value), str(int(scale == each.best))]
        for each in made
        for scale, value in each.gains.items()
    ]
    return Grid(["row", "guidance_scale", "objective", "best"], lines).csv()


def scales_markdown(made: Sequence[Scales]) -> str:
    """A table: a row for each row, a column for each scale, the best in bold."""
    if not made:
        return ""
    headers = [f"CFG {scale:g}" + (" (the suite's)" if scale == made[0].own else "") for scale in made[0].gains]
    lines = [
        [each.row, *(_text(value, bold=scale == each.best) for scale, value in each.gains.items())] for each in made
    ]
    about = "The objective of each row's model at several scales of guidance, on the same prompts and noise."
    return f"\n## Guidance\n\n{about}\n\n{Grid(['Row', *headers], lines).markdown()}"


def _text(value: float | None, *, bold: bool) -> str:
    mark = "**" if bold else ""
    return "–" if value is None else f"{mark}{value:+.3f}{mark}"
