"""How the scores of a corpus lie: a histogram, and what each threshold would keep."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bench import records

SHARES = (0.5, 0.25, 0.1, 0.05, 0.024, 0.013, 0.01, 0.001)
"""Shares shown of the best pairs; 2.4 % and 1.3 % are what 0.40 and 6.8 keep of the paper's corpus (section 3.1)."""

BINS = 50


def summarise(scores: pd.Series, folder: Path, name: str, thresholds: Mapping[str, float]) -> str:
    """Write how scores lie, and return the table of thresholds for people.

    ``folder`` gets ``histogram.csv`` (low, high, count), ``kept.csv`` (threshold, kept, dropped, share, rule) and
    ``histogram.png``.

    Args:
        scores: of the usable pairs, exact duplicates once; NaN where the metric failed, which every threshold drops.
        name: of the metric, for the axis.
        thresholds: rule → threshold to show besides those of the usual shares.
    """
    numbers = scores.dropna()
    table = threshold_table(scores, thresholds)
    counts, edges = np.histogram(numbers, bins=BINS)
    bins = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": counts})
    records.write_if_new(folder / "histogram.csv", bins.to_csv(index=False, float_format="%.6g").encode())
    records.write_if_new(folder / "kept.csv", table.to_csv(index=False, float_format="%.6g").encode())
    records.write_if_new(folder / "histogram.png", _draw(bins, name, thresholds))
    lines = [f"{'threshold':>10} {'kept':>10} {'dropped':>10} {'share':>8}  rule"]
    lines += [
        f"{row.threshold:>10.4f} {row.kept:>10,} {row.dropped:>10,} {row.share:>8.2%}  {row.rule}"
        for row in table.itertuples()
    ]
    return "\n".join(lines)


def threshold_table(scores: pd.Series, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """threshold, kept, dropped, share and rule, from the lowest threshold to the highest."""
    rows = [(value, rule) for rule, value in thresholds.items()]
    rows += [(float(scores.quantile(1 - share, interpolation="higher")), f"best {share:.3g}") for share in SHARES]
    table = pd.DataFrame(rows, columns=["threshold", "rule"]).sort_values("threshold", kind="stable")
    table["kept"] = [int((scores >= threshold).sum()) for threshold in table["threshold"]]
    table["dropped"] = len(scores) - table["kept"]
    table["share"] = table["kept"] / len(scores)
    return table[["threshold", "kept", "dropped", "share", "rule"]]


def _draw(bins: pd.DataFrame, name: str, thresholds: Mapping[str, float]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(bins["low"], bins["count"], width=bins["high"] - bins["low"], align="edge", color="#4878a8")
    for number, (rule, value) in enumerate(thresholds.items()):
        axes.axvline(value, color="black", linestyle=("-", "--", ":", "-.")[number % 4], label=f"{rule}: {value:.4g}")
    axes.set(xlabel=name, ylabel="pairs")
    if thresholds:
        axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, metadata={"Software": None})
    return buffer.getvalue()
