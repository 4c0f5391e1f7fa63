"""The published tables, read from the files beside this one; ``README.md`` says where each number stands."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.report.text import Grid, count

PAPER = "SOAR: Self-Correction for Optimal Alignment and Refinement in Diffusion Models, arXiv 2604.12617"

METRICS = {
    "geneval": "GenEval",
    "ocr": "OCR",
    "pickscore": "PickScore",
    "clipscore": "ClipScore",
    "hpsv2_1": "HPSv2.1",
    "aesthetic": "Aesthetic",
    "imagereward": "ImageReward",
}
"""Columns of the files, and what the paper calls them (its ImgRwd written out)."""


@dataclass(frozen=True)
class PublishedRow:
    """A row as the paper prints it.

    Attributes:
        source: the table or figure.
        measured_as: what a run of this project calls the same row.
        subset: what it was trained on; empty for a model that the paper did not train.
        resolution, iterations: pixels and gradient steps; None where the paper does not say.
        values: by metric, with the digits that are printed.
    """

    source: str
    name: str
    measured_as: str
    subset: str
    resolution: int | None
    iterations: int | None
    values: Mapping[str, str]


@dataclass(frozen=True)
class PublishedTable:
    """A table of the paper, ``name`` being its file here."""

    name: str
    source: str
    about: str
    metrics: tuple[str, ...]
    rows: tuple[PublishedRow, ...]

    def grid(self) -> Grid:
        """The table for people."""
        headers = ["Row", "Trained on", "Resolution", "Iterations", *(METRICS[metric] for metric in self.metrics)]
        lines = [
            [
                row.name,
                row.subset or "–",
                f"{row.resolution} px" if row.resolution else "–",
                "–" if row.iterations is None else count(row.iterations),
                *(row.values.get(metric, "–") for metric in self.metrics),
            ]
            for row in self.rows
        ]
        return Grid(headers, lines)

    def csv(self) -> str:
        """The table as numbers, each line with its source; what the paper does not say is empty."""
        headers = ["source", "row", "measured_as", "subset", "resolution", "iterations", *self.metrics]
        lines = []
        for row in self.rows:
            known = ["" if number is None else str(number) for number in (row.resolution, row.iterations)]
            values = [row.values.get(metric, "") for metric in self.metrics]
            lines.append([f"arXiv 2604.12617, {row.source}", row.name, row.measured_as, row.subset, *known, *values])
        return Grid(headers, lines).csv()


_TABLES = {
    "main": ("Table 2", "286,119 pairs, global batch 512"),
    "ablation": ("Table 3", "variants of SOAR on the same pairs, global batch 512"),
    "dynamics": ("Figure 3", "end points on DrawBench, as section 3.3 states them; global batch 32"),
}


@cache
def tables() -> tuple[PublishedTable, ...]:
    """Table 2, Table 3 and the end points of Figure 3."""
    return tuple(_read(name, source, about) for name, (source, about) in _TABLES.items())


def _read(name: str, source: str, about: str) -> PublishedTable:
    with Path(__file__).with_name(f"{name}.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        metrics = tuple(metric for metric in METRICS if metric in (reader.fieldnames or ()))
        rows = tuple(
            PublishedRow(
                source,
                line["row"],
                line["measured_as"],
                line["subset"],
                int(line["resolution"]) if line["resolution"] else None,
                int(line["iterations"]) if line["iterations"] else None,
                {metric: line[metric] for metric in metrics if line[metric]},
            )
            for line in reader
        )
    return PublishedTable(name, source, about, metrics, rows)
