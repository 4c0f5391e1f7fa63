"""The paradigms' table: what each method declares, and what its training cost."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report import method_inputs, method_settings
from bench.report.study import Study
from bench.report.tables import head
from bench.report.text import Grid, count, percent, scientific
from bench.training.meter import Meter

TRAITS = {
    "training_signal": "Training signal",
    "on_policy": "On-policy",
    "signal_density": "Signal density",
    "credit_assignment": "Credit assignment",
    "reward_hacking": "Reward hacking",
    "resolves_model_bias": "Resolves model bias",
    "trains": "Trains",
}
"""What a method declares, under the headings of Table 1 of the SOAR paper."""


def paradigms(study: Study) -> Grid:
    """Table 1 of the SOAR paper. All but the cost is declared by the methods; the cost is what the meter counted."""
    spent = {method: [job.spent for job in study.jobs if job.method == method] for method in study.methods}
    per_update = {method: _flops_per_update(meters) for method, meters in spent.items()}
    cheapest = min((cost for cost in per_update.values() if cost), default=None)
    rows = []
    for method in study.methods:
        record = next((job.record for job in study.jobs if job.method == method and job.record), None)
        declared = [(record.traits.get(key) if record else None) or "–" for key in TRAITS]
        needs = record.needs if record else {}
        reward = "yes" if needs.get("reward") else "no"
        reward = "yes, differentiable" if needs.get("differentiable_reward") else reward
        cost = per_update[method]
        measured = "–"
        if cost and cheapest:
            shares = [study.share(meter) for meter in spent[method]]
            updates = sum(meter.updates for meter in spent[method])
            measured = f"{cost / cheapest:.1f}× per update ({scientific(cost)} FLOPs), {count(updates)} updates"
            measured += f" in {percent(sum(shares) / len(shares))} of the budget"
            measured += f", {len(shares)} jobs" if len(shares) > 1 else ""
        source = (record.traits.get("paper") if record else None) or "–"
        rows.append([method, *declared[:3], reward if record else "–", *declared[3:], measured, source])
    titles = list(TRAITS.values())
    headers = ["Method", *titles[:3], "Reward model", *titles[3:], "Training cost (measured)", "Paper"]
    return Grid(headers, rows)


PARADIGMS_NOTE = (
    "Declared by each method, except the training cost, which the meter counted: FLOPs for each optimizer update, "
    "rollouts and rewards included, relative to the method whose update is cheapest; then the updates of all its jobs "
    "and the mean share of the budget they used."
)


def paradigms_markdown(study: Study) -> str:
    """The paradigms' table, saying what is declared and what measured; what each was given, and its settings."""
    declared = f"{head(study, 'Paradigms')}{paradigms(study).markdown()}\n{PARADIGMS_NOTE}\n"
    parts = (
        ("Given", method_inputs.inputs(study), method_inputs.NOTE),
        ("Settings", method_settings.settings(study), method_settings.NOTE),
    )
    return declared + "".join(f"\n## {title}\n\n{grid.markdown()}\n{note}\n" for title, grid, note in parts)


def _flops_per_update(meters: Sequence[Meter]) -> float | None:
    updates = sum(meter.updates for meter in meters)
    return sum(meter.flops for meter in meters) / updates if updates else None
