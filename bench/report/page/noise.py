"""What chance alone does in this run: how often two seeds of one row are told apart."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.report.differences import distinct_seeds
from bench.report.study import Study
from bench.report.text import Grid, percent


@dataclass(frozen=True)
class Noise:
    """Tables with their captions, and sentences under them. Components and power belong here too."""

    grids: list[tuple[str, Grid]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def noise(study: Study) -> Noise:
    """Empty where no row has two seeds."""
    counts = {label: found for label, found in distinct_seeds(study).items() if found[1]} if study.jobs else {}
    if not counts:
        return Noise()
    rows = [[label, str(told), str(of), percent(told / of)] for label, (told, of) in counts.items()]
    grid = Grid(["Metric", "Pairs told apart", "Of pairs", "Share"], rows)
    return Noise(
        [("A/A: two seeds of one row, with intervals over prompts alone", grid)],
        [
            "Both trainings of a pair are the same but for the seed, so every pair that is told apart is told apart by "
            "luck. A share beyond 5 % is what the seeds add, and what intervals of several seeds account for."
        ],
    )
