"""Rehearsals at full size: SD3.5-Medium at 512 px, bfloat16, on pretended GPUs. ``python perf/rehearsal.py [--json]``.

The methods and settings are those of ``experiments/paper_dynamics_aesthetic.toml``: micro-batches of 4. Nothing here is
measured on a GPU: memory is that of tensors, and operators and waits are counted. A GPU is compared with it by
``perf/rehearsal_on_gpu.py``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

EXPERIMENT = ROOT / "experiments" / "paper_dynamics_aesthetic.toml"
SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "1 GPU": (1, {"sharding": "ddp", "gradient_checkpointing": False}),
    "1 GPU, checkpointing": (1, {"sharding": "ddp"}),
    "8 GPUs, ddp, checkpointing": (8, {"sharding": "ddp"}),
    "8 GPUs, fsdp, checkpointing": (8, {"sharding": "fsdp"}),
}
"""Processes, and what goes over the experiment."""
GIB = 2**30


def rows(methods: tuple[str, ...], chosen: list[str], cache: Path) -> list[dict[str, Any]]:
    """A row for each method under each setting."""
    from bench.experiment.config import read_experiment
    from bench.rehearsal.ask import rehearsed
    from bench.rehearsal.fit import fits, needed
    from bench.rehearsal.results import setting_of

    out = []
    for called in chosen:
        processes, flags = SETTINGS[called]
        config = read_experiment(EXPERIMENT, flags | {"methods": methods})
        for found in rehearsed(config, setting_of(config, processes), cache, grid=""):
            step = found.part("step")
            row: dict[str, Any] = {"method": found.stage, "setting": called, "problem": found.problem}
            if step is not None:
                row |= {
                    "step_gib": round(step.peak / GIB, 2),
                    "at": f"{step.at}, {step.where}",
                    "left_gib": round(step.left / GIB, 2),
                    "operators": step.operators,
                    "waits": step.waits,
                    "host_mib": round(step.host_bytes / 2**20),
                    "phases_gib": {name: round(sum(of.values()) / GIB, 2) for name, of in step.phases.items()},
                    "kinds_gib": {kind: round(size / GIB, 2) for kind, size in step.kinds.items()},
                    "parts_gib": {part.name: round(part.peak / GIB, 2) for part in found.parts},
                    "needed_gib": round(needed(found.peak) / GIB, 2),
                    "fits": [label for label, yes in fits(found.peak).items() if yes],
                }
            out.append(row | {"rehearsal_seconds": found.seconds})
            print(_line(out[-1]), flush=True)
    return out


def _line(row: dict[str, Any]) -> str:
    if "step_gib" not in row:
        return f"{row['method']:>10}  {row['setting']:<28}  {row['problem']}"
    gpus = ", ".join(f"{label} GB" for label in row["fits"]) or "none"
    return (
        f"{row['method']:>10}  {row['setting']:<28}  step {row['step_gib']:6.2f} GiB  stays {row['left_gib']:6.2f}  "
        f"{row['operators']:>9,} operators  {row['waits']:>4} waits  needs {row['needed_gib']:6.2f}: {gpus}"
        + (f"  ({row['problem']})" if row["problem"] else "")
    )


def main() -> None:
    """Rehearse, print a table, write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="sft,soar,flow_grpo")
    parser.add_argument("--settings", default=",".join(map(str, range(len(SETTINGS)))), help="numbers, from 0")
    parser.add_argument("--cache", type=Path, default=ROOT / "cache")
    parser.add_argument("--json", action="store_true", help="write perf/rehearsal.json")
    arguments = parser.parse_args()
    names = list(SETTINGS)
    start = time.monotonic()
    chosen = [names[int(number)] for number in arguments.settings.split(",")]
    found = rows(tuple(arguments.methods.split(",")), chosen, arguments.cache)
    print(f"{time.monotonic() - start:.0f} s")
    if arguments.json:
        from bench.machine.versions import git_state, versions

        about = {"processor": platform.machine(), "versions": versions(), "code": git_state()}
        text = json.dumps({"about": about, "rows": found}, indent=1)
        (ROOT / "perf" / "rehearsal.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
