"""Measures an embedded backbone against its gates: what its VAE keeps, and how good its pictures are."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import records
from bench.backbone.loader import Backbone, BackboneSpec
from bench.backbone.policy import Policy
from bench.errors import BenchError
from bench.evaluation import Evaluator
from bench.experiment.recorded import untrained_header
from bench.machine.engine import Engine
from bench.records.reading import read_job_folder, scores_by_group
from bench.records.schema import ExperimentRecord
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
    "geneval": (0.50, 0.75),
    "ocr": (0.30, 1.0),
    "control": (0.0, 0.05),
}
"""Least and greatest value of each figure. A base above 0.75 would leave post-training no head-room.

A base that moves further in its control lacks training, and all methods would gain from that alone.
"""


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

    shares = [np.mean(WorldGenEval().score(*draw(tag, scenes_per_task))) for tag in V.TASKS]
    read = RapidOCRAccuracy().score(*draw("sign", signs))
    return {"vae_scenes_kept": float(np.mean(shares)), "vae_signs_kept": float(np.mean(np.array(read) == 1.0))}


def base_quality(backbone: Backbone) -> dict[str, Any]:
    """GenEval (overall and per task) and OCR of the base model on the embedded suite's held-out prompts."""
    metrics = {"world_geneval": WorldGenEval(), "ocr_rapid": RapidOCRAccuracy()}
    suite = embedded.suite()
    suite = suite.with_metrics({name: prompts.name for name, prompts in suite.metrics() if name in metrics})
    suite = replace(suite, prompt_sets=tuple(prompts for prompts in suite.prompt_sets if prompts.metrics))
    evaluator = Evaluator(suite, backbone, dict(metrics))
    policy = Policy(backbone.transformer(), backbone.scheduler(), backbone.encode_prompts([""]))
    with tempfile.TemporaryDirectory() as folder:
        evaluator.run(evaluator.painter(policy), Path(folder) / "0", header=untrained_header())
        tasks = _means(Path(folder) / "0", "world_geneval")
        signs = _means(Path(folder) / "0", "ocr_rapid")
    return {
        "geneval": round(float(np.mean(list(tasks.values()))), 4),
        "geneval_tasks": {task: round(mean, 4) for task, mean in tasks.items()},
        "ocr": round(signs["sign"], 4),
        "images": suite.images(),
    }


def control(run: Path, backbone: Backbone) -> float:
    """How far GenEval moved from the base to the end of a run's jobs, as an absolute difference of means.

    Of jobs on the subset ``random`` it is what more training does, whatever it trains on.

    Raises:
        BenchError: the run is not finished, or not of this backbone.
    """
    experiment = records.read_record(ExperimentRecord, run / "experiment.json")
    if experiment.backbone_hash != backbone.fingerprint:
        raise BenchError(f"{run} is a run of other weights than {backbone.folder}; delete it and run the control again")
    base = _geneval(run / records.BASE, 0.0)
    return abs(float(np.mean([_geneval(run / job, 1.0) for job in experiment.jobs])) - base)


def _geneval(job: Path, fraction: float) -> float:
    """Mean over tasks, of the evaluation at a share of the budget."""
    evaluations = [path for path, record in read_job_folder(job).evaluations.items() if record.fraction == fraction]
    if not evaluations:
        raise BenchError(f"{job} has no evaluation at {fraction:.0%} of its budget; finish the run first")
    return float(np.mean(list(_means(evaluations[0].parent, "world_geneval").values())))


def _means(evaluation: Path, metric: str) -> dict[str, float]:
    """Mean score of a metric by the prompts' group."""
    scores = scores_by_group(evaluation / "evaluation.json", metric)
    return {group: float(np.mean(values)) for group, values in scores.items()}


def recipe(out: Path, steps: int | None, device: str) -> None:
    """Last stage of `bench pretrain`: writes ``quality.json`` beside the pipeline in ``out/tiny_sd3``.

    The control is read from the run ``out/control``, if it is there.
    """
    folder = out / "tiny_sd3"
    backbone = Backbone(BackboneSpec("tiny-sd3", str(folder), 12, 64, "embedded"), Engine(device=device))
    quality = round_trip(backbone, scenes_per_task=200, signs=200) | base_quality(backbone)
    if (out / "control").exists():
        quality["control"] = round(control(out / "control", backbone), 4)
    missed = [
        f"{name} {quality[name]:.3f} not in [{low}, {high}]" if name in quality else f"{name} not measured"
        for name, (low, high) in GATES.items()
        if name not in quality or not low <= quality[name] <= high
    ]
    records.write_json(folder / "quality.json", quality | {"gates_missed": missed})
    print(quality, "all gates passed" if not missed else f"gates missed: {missed}")
