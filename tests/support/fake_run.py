"""A fake run directory: everything a report reads, in a few kilobytes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

NOTICE = "Rendered shapes & tiny-sd3 <embedded>: not SD3.5-Medium's numbers."
TASKS = ("single", "two", "counting", "colors", "position", "attribution")
FRACTIONS = [0.333, 0.667, 1.0]
BUDGET = 1e12
PALETTE = ("crimson", "royalblue", "gold", "seagreen", "orchid", "darkorange", "teal")


def metric(name: str, label: str, images: int, prompt_set: str, grouped: bool = False) -> dict[str, Any]:
    """A column of the fake suite."""
    return {
        "name": name,
        "label": label,
        "version": 1,
        "higher_is_better": True,
        "low": 0.0,
        "high": 1.0,
        "format": ".3f",
        "prompt_set": prompt_set,
        "images": images,
        "grouped": grouped,
    }


class FakeRun:
    """Writes jobs one at a time. Scores rise with ``gain`` times the fraction, on noise that all jobs share."""

    def __init__(self, folder: Path, per_group: int = 4, repeats: int = 2, signs: int = 6) -> None:
        self.folder = folder
        self.per_group, self.repeats, self.signs = per_group, repeats, signs
        scenes = len(TASKS) * per_group * repeats
        self.experiment: dict[str, Any] = {
            "v": 1,
            "name": folder.name,
            "backbone": "tiny-sd3",
            "backbone_hash": "0123456789abcdef",
            "corpus": "world",
            "notice": NOTICE,
            "suite": {
                "name": "embedded",
                "version": 1,
                "metrics": [
                    metric("geneval", "GenEval", scenes, "scenes", grouped=True),
                    metric("ocr", "OCR", signs * repeats, "signs"),
                    metric("clip", "ClipScore", scenes, "scenes"),
                    metric("style", "Aesthetic", scenes, "scenes"),
                ],
                "sampler": {"steps": 20, "guidance_scale": 3.0, "resolution": 64},
            },
            "budget": f"flops={BUDGET:g}",
            "fractions": FRACTIONS,
            "jobs": [],
        }
        self.save()

    def save(self) -> None:
        self.write("experiment.json", self.experiment)

    def write(self, path: str, value: Any) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")

    def lines(self, path: str, rows: list[dict[str, Any]]) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps({"v": 1, **row}) + "\n" for row in rows), encoding="utf-8")

    def base(self) -> None:
        self._describe("base", "base", None, None, None, "finished", None)
        self.evaluation("base", 0, 0.0, 0.0, seed=0)

    def context(self, slug: str, label: str | None, shift: float, **settings: Any) -> str:
        """Write another model's evaluation."""
        name = f"context--{slug}"
        self._describe(name, "context", None, None, None, "finished", None)
        more = {"label": label, "context": settings}
        self.write(f"{name}/job.json", json.loads((self.folder / name / "job.json").read_text()) | more)
        self.evaluation(name, 0, 0.0, shift, seed=0)
        return name

    def evaluated(
        self, slug: str, label: str | None, shift: float, training: dict[str, Any] | None = None, **what: Any
    ) -> str:
        """Write the evaluation of given weights or images; ``training`` says which job of a run they are of."""
        name = f"evaluated--{slug}"
        self._describe(name, "evaluated", None, None, None, "finished", None)
        more = {"label": label, "evaluated": what, **({"training": training} if training else {})}
        self.write(f"{name}/job.json", json.loads((self.folder / name / "job.json").read_text()) | more)
        self.evaluation(name, 0, 0.0, shift, seed=0)
        return name

    def swept(
        self,
        slug: str,
        scale: float,
        shift: float,
        *,
        method: str | None = None,
        subset: str = "pretty",
        seed: int = 0,
        reward: str | None = None,
        **what: Any,
    ) -> str:
        """Write a row of a sweep over guidance scales: of a pipeline or, with a ``method``, of a job."""
        job = {"run": "demo", "method": method, "subset": subset, "seed": seed, "reward": reward} if method else {}
        about = {"kind": "transformer" if method else "pipeline", "backbone_hash": "0123", "max_sequence_length": 12}
        sampler = self.experiment["suite"]["sampler"] | {"guidance_scale": scale}
        about |= {"sampler": sampler, "sweep": {"name": slug, **job}} | what
        return self.evaluated(f"{slug}--cfg{scale:g}", f"{slug}, CFG {scale:g}", shift, **about)

    def job(
        self,
        method: str,
        gain: float,
        *,
        subset: str = "pretty",
        seed: int = 0,
        share: float = 0.998,
        reward: str | None = None,
        status: str = "finished",
        reason: str | None = None,
        fractions: list[float] = FRACTIONS,
        updates: int = 90,
        config: dict[str, Any] | None = None,
        preferences: int = 0,
        tuned: dict[str, dict[str, Any]] | None = None,
    ) -> str:
        """Write a job that spent ``share`` of the budget and was evaluated at ``fractions``."""
        name = f"{method}--{subset}--s{seed}"
        self.experiment["jobs"].append(name)
        self.save()
        self._describe(name, method, subset, seed, reward, status, reason, config)
        if preferences:
            record = json.loads((self.folder / name / "job.json").read_text())
            record["needs"] |= {"pairs": False, "preference_pairs": True}
            self.write(f"{name}/job.json", record | {"preferences": {"corpus": "liked", "pairs": preferences}})
        if tuned:
            record = json.loads((self.folder / name / "job.json").read_text())
            chosen = {"values": tuned, "trials": 6, "suite": "validation"}
            self.write(f"{name}/job.json", record | {"tuned": chosen})
        steps = [{"step": s, **self._spent(share * s / 9, updates * s // 9)} for s in range(1, 10)]
        self.lines(f"{name}/meter.jsonl", steps)
        self.lines(f"{name}/train.jsonl", [{"step": s, "loss": 1.0 / s} for s in range(1, 10)])
        clock = [{"step": s, "seconds": 9.5 * s, "peak_memory": 1_300_000_000} for s in range(1, 10)]
        self.lines(f"{name}/clock.jsonl", clock)
        for fraction in fractions:
            self.evaluation(name, round(9 * fraction), fraction, gain * fraction, seed=seed)
        return name

    def _describe(
        self,
        name: str,
        method: str,
        subset: str | None,
        seed: int | None,
        reward: str | None,
        status: str,
        reason: str | None,
        config: dict[str, Any] | None = None,
    ) -> None:
        traits = ("training_signal", "on_policy", "signal_density", "credit_assignment", "reward_hacking")
        traits += ("resolves_model_bias", "trains", "paper")
        record = {
            "v": 1,
            "job": name,
            "method": method,
            "subset": subset,
            "seed": seed,
            "config": config or {},
            "needs": {"pairs": True, "prompts": False, "reward": reward is not None, "differentiable_reward": False},
            "traits": {} if subset is None else {key: f"{key.replace('_', ' ')} of {method}" for key in traits},
            "reward": reward,
            "versions": {"python": "3.11.9", "torch": "2.13.0"},
            "git": {"commit": "f" * 40, "dirty": False},
            "subset_hash": "ab" * 32 if subset else None,
            "subset_count": 1234 if subset else None,
        }
        self.write(f"{name}/job.json", record)
        self.write(f"{name}/status.json", {"v": 1, "status": status, "reason": reason})

    def _spent(self, share: float, updates: int) -> dict[str, Any]:
        work = {"forwards": 64 * updates, "backwards": 32 * updates, "images": 0, "reward_calls": 0}
        return {"flops": share * BUDGET, "steps": updates, "updates": updates, "pairs": 32 * updates, **work}

    def draw_a_part(self, every: int) -> None:
        """From here on, evaluations of jobs before their last draw every so-many-th prompt of each group."""
        self.experiment["suite"]["on_the_way"] = every
        for column in self.experiment["suite"]["metrics"]:
            size, groups = (self.signs, 1) if column["prompt_set"] == "signs" else (self.per_group, len(TASKS))
            column["images_on_the_way"] = -(-size // every) * groups * self.repeats
        self.save()

    def evaluation(self, job: str, step: int, fraction: float, shift: float, seed: int) -> None:
        """Score and draw every sample the suite owes."""
        every = self.experiment["suite"].get("on_the_way", 1) if 0 < fraction < 1 else 1
        part = {"every": every} if every > 1 else {}
        folder = f"{job}/evaluations/{step}"
        spent = self._spent(0.998 * fraction, 10 * step)
        self.write(f"{folder}/evaluation.json", {"v": 1, "step": step, "fraction": fraction, "spent": spent, **part})
        prompts = [("scenes", task, f"{task}-{i}") for task in TASKS for i in range(0, self.per_group, every)]
        prompts += [("signs", "sign", f"sign-{i}") for i in range(0, self.signs, every)]
        rows = []
        for prompt_set, group, prompt_id in prompts:
            for repeat in range(self.repeats):
                shared, own = (
                    random.Random(f"{prompt_id}/{repeat}"),
                    random.Random(f"{job}/{step}/{prompt_id}/{repeat}"),
                )
                value = 0.45 + 0.35 * shared.random() + shift + 0.04 * own.random()
                names = ("geneval", "clip", "style") if prompt_set == "scenes" else ("ocr",)
                image = f"images/{prompt_id}-{repeat}.png"
                self._draw(f"{folder}/{image}", prompt_id, shift)
                rows.append(
                    {
                        "prompt_set": prompt_set,
                        "prompt_id": prompt_id,
                        "prompt": f"a photo of the {group} | <{prompt_id}> & $x$",
                        "group": group,
                        "repeat": repeat,
                        "seed": seed,
                        "image": image,
                        "scores": {name: {"version": 1, "score": value} for name in names},
                    }
                )
        self.lines(f"{folder}/samples.jsonl", rows)

    def _draw(self, path: str, prompt_id: str, shift: float) -> None:
        rng = random.Random(prompt_id)
        picture = Image.new("RGB", (64, 64), (236, 234, 228))
        x, y, r = rng.randrange(16, 48), rng.randrange(16, 48), 8 + int(30 * abs(shift))
        ImageDraw.Draw(picture).ellipse((x - r, y - r, x + r, y + r), fill=rng.choice(PALETTE))
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)
