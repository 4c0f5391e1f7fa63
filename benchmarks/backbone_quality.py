"""Measures an embedded backbone against its gates: what its VAE keeps, and how good its pictures are."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench import records
from bench.backbone.loader import Backbone, BackboneSpec
from bench.backbone.policy import Policy
from bench.evaluation import Evaluator
from bench.experiment.recorded import untrained_header
from bench.machine.engine import Engine
from bench.rng import numpy_generator
from bench.suite import Prompt
from benchmarks import world_prompts
from benchmarks.metrics.ocr_rapid import RapidOCRAccuracy
from benchmarks.metrics.world_geneval import WorldGenEval
from benchmarks.suites import embedded
from data_curation.world import scene
from data_curation.world import vocabulary as V
from data_curation.world.render import render

GATES = {
    "vae_scenes_kept": (0.98, 1.0),
    "vae_signs_kept": (0.95, 1.0),
    "geneval": (0.50, 0.80),
    "ocr": (0.30, 1.0),
}
"""Least and greatest value of each figure. A base above 0.80 would leave post-training no head-room."""


def round_trip(backbone: Backbone, *, scenes_per_task: int, signs: int, seed: int = 7) -> dict[str, float]:
    """Share of ground-truth pictures that metrics still find right after encoding and decoding.

    Returns:
        ``vae_scenes_kept`` (GenEval's rule, all six tasks) and ``vae_signs_kept`` (the word read without a mistake).
    """
    rng = numpy_generator(seed, 0, 0, "round-trip")

    def draw(tag: str, count: int) -> tuple[list[np.ndarray], list[Prompt]]:
        prompts = scene.all_prompts(tag)
        picked = [prompts[i] for i in rng.integers(len(prompts), size=count)]
        pixels = np.stack([render(scene.compose(prompt, rng)) for prompt in picked])
        decoded = backbone.decode(backbone.encode_images(pixels))
        return list(decoded), [world_prompts.as_prompt(p, 0) for p in picked]

    kept = [np.mean(WorldGenEval().score(*draw(tag, scenes_per_task))) for tag in V.TASKS]
    read = RapidOCRAccuracy().score(*draw("sign", signs))
    return {"vae_scenes_kept": float(np.mean(kept)), "vae_signs_kept": float(np.mean(np.array(read) == 1.0))}


def base_quality(backbone: Backbone) -> dict[str, Any]:
    """GenEval (overall and per task) and OCR of the base model on the embedded suite's held-out prompts."""
    suite = embedded.suite()
    metrics = {"world_geneval": WorldGenEval(), "ocr_rapid": RapidOCRAccuracy()}
    scored = [
        type(s)(s.name, s.prompts, s.repeats, tuple(m for m in s.metrics if m in metrics)) for s in suite.prompt_sets
    ]
    suite = type(suite)(**{**vars(suite), "prompt_sets": tuple(scored)})
    evaluator = Evaluator(suite, backbone, dict(metrics))
    policy = Policy(backbone.transformer(), backbone.scheduler(), backbone.encode_prompts([""]))
    scores: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        evaluator.run(evaluator.painter(policy), Path(folder) / "0", header=untrained_header())
        for row in records.read_lines(Path(folder) / "0" / "samples.jsonl"):
            for metric, cell in row["scores"].items():
                scores.setdefault((metric, row["group"]), []).append(cell["score"])
    tasks = {group: round(float(np.mean(v)), 4) for (metric, group), v in scores.items() if metric == "world_geneval"}
    return {
        "geneval": round(float(np.mean(list(tasks.values()))), 4),
        "geneval_tasks": tasks,
        "ocr": round(float(np.mean(scores["ocr_rapid", "sign"])), 4),
        "images": suite.images(),
    }


def recipe(out: Path, steps: int | None, device: str) -> None:
    """Last stage of `bench pretrain`: writes ``quality.json`` beside the pipeline in ``out/tiny_sd3``."""
    folder = out / "tiny_sd3"
    backbone = Backbone(BackboneSpec("tiny-sd3", str(folder), 12, 64, "embedded"), Engine(device=device))
    quality = round_trip(backbone, scenes_per_task=200, signs=200) | base_quality(backbone)
    missed = [
        f"{n} {quality[n]:.3f} not in [{low}, {high}]"
        for n, (low, high) in GATES.items()
        if not low <= quality[n] <= high
    ]
    records.write_json(folder / "quality.json", quality | {"gates_missed": missed})
    print(quality, "all gates passed" if not missed else f"gates missed: {missed}")
