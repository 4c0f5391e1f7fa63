"""What each method learns from. Methods that learn from other things compare as wholes, not as losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.records.schema import JobRecord
from bench.report.method_settings import spelled
from bench.report.study import Study
from bench.report.text import Grid, by_subset, count

NOTE = (
    "Every method starts from the same weights and has the same budget; what it learns from is its own. Prompts are "
    "the subset's captions. Where a reward is a column of the main table, the cell is marked †. Tuned settings were "
    "chosen among as many trials for every method, on prompts and a seed that are not reported; others are defaults."
)


def inputs(study: Study) -> Grid:
    """A row for each method: the subset's pairs, prompts, reward and preference pairs, as its jobs recorded them."""
    rows = []
    for method in study.methods:
        jobs = [job.record for job in study.jobs if job.method == method and job.record]
        rows.append([method, *(_cells(study, jobs) if jobs else ["–"] * 5)])
    return Grid(["Method", "Image-caption pairs", "Prompts", "Reward", "Preference pairs", "Tuned"], rows)


def _cells(study: Study, jobs: Sequence[JobRecord]) -> list[str]:
    needs = {name for job in jobs for name, needed in job.needs.items() if needed}
    labels = {metric.name: metric.label for metric in study.metrics}
    rewards = by_subset((job.subset, labels.get(job.reward, job.reward)) for job in jobs if job.reward)
    if "differentiable_reward" in needs:
        rewards += ", with its gradient"
    preferences = by_subset((job.subset, _preferences(job)) for job in jobs if job.preferences)
    reward_needs = {"reward", "differentiable_reward"} & needs
    return [
        "yes" if "pairs" in needs else "no",
        "yes" if "prompts" in needs else "no",
        (rewards or "yes") if reward_needs else "no",
        (preferences or "yes") if "preference_pairs" in needs else "no",
        by_subset((job.subset, _tuned(job.tuned)) for job in jobs if job.tuned) or "no",
    ]


def _tuned(tuned: Mapping[str, Any]) -> str:
    """Settings by stage, and how they were chosen: among how many trials, on which prompts, by which medians."""
    rows: Mapping[str, Mapping[str, Any]] = tuned.get("rows") or {}
    how = [f"{tuned['trials']} trials on {tuned['suite']}"]
    for name, row in rows.items():
        parts = []
        if row.get("confirmed"):
            parts.append(f"{row['confirmed']} run again on fresh seeds")
        if "median" in row and "default_median" in row:
            parts.append(f"median {row['median']:+.3f}, before tuning {row['default_median']:+.3f}")
        if "guidance_scale" in row:
            parts.append(f"own guidance scale {row['guidance_scale']:g}")
        if parts:
            how.append((f"{name}: " if len(rows) > 1 else "") + ", ".join(parts))
    return f"{spelled(tuned['values'])} ({'; '.join(how)})"


def _preferences(job: JobRecord) -> str:
    pairs: Mapping[str, Any] = job.preferences or {}
    return f"{pairs['corpus']}, {count(pairs['pairs'])} pairs"
