"""What a step of each method costs beside SFT's, from the records of a run. ``python perf/cost_per_step.py RUN``.

Writes ``bench/cli/costs.json``, which ``bench list methods`` shows. FLOPs are the meter's and exact; seconds are those
of each method's fastest job, and mean something only where at least one job of each had its cores to itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import records, registry
from bench.cli import costs


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a table, and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a finished run, such as runs/embedded")
    parser.add_argument("--reference", default=registry.DEFAULT_METHODS[0], help="method held against")
    parser.add_argument("--machine", required=True, help="where it ran, in words, such as '2-core CPU'")
    parser.add_argument("--out", type=Path, default=costs.PATH)
    options = parser.parse_args(arguments)
    costs_of = costs.measure(options.run, options.reference, options.machine)
    width = max(map(len, costs_of["methods"]))
    print(f"{'':<{width}} {'jobs':>5}" + "".join(f" {key.replace('_', ' '):>24}" for key in costs.FIGURES))
    for name, row in costs_of["methods"].items():
        cells = (f" {row[key]:>14.4g} ({row['relative'][key]:>6.3g}x)" for key in costs.FIGURES)
        print(f"{name:<{width}} {row['jobs']:>5}" + "".join(cells))
    records.write_json(options.out, costs_of)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
