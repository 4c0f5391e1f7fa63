"""Names to code. Nothing is imported until it is used, so ``bench list`` and ``bench --help`` stay instant.

A built-in is one line below. A package outside this repository adds entries through the entry-point groups
``bench.methods``, ``bench.metrics``, ``bench.subsets``, ``bench.suites``, ``bench.corpora`` and ``bench.backbones``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from bench.errors import BenchError, unknown

BUILT_IN: dict[str, dict[str, str]] = {
    "methods": {
        "sft": "methods.sft:SFT",
        "soar": "methods.soar:SOAR",
        "input_perturbation": "methods.input_perturbation:InputPerturbation",
        "reflexflow": "methods.reflexflow:ReflexFlow",
        "flow_grpo": "methods.flow_grpo:FlowGRPO",
    },
    "subsets": {
        "all": "data_curation.subsets:ALL",
        "high_aesthetic": "data_curation.subsets:HIGH_AESTHETIC",
        "high_clipscore": "data_curation.subsets:HIGH_CLIPSCORE",
        "posters": "data_curation.subsets:POSTERS",
        "web_ui": "data_curation.subsets:WEB_UI",
    },
    "suites": {
        "embedded": "benchmarks.suites.embedded:suite",
        "embedded_validation": "benchmarks.suites.embedded_validation:suite",
        "smoke": "benchmarks.suites.smoke:suite",
        "drawbench": "benchmarks.suites.drawbench:suite",
        "paper": "benchmarks.suites.paper:suite",
    },
    "metrics": {
        "world_geneval": "benchmarks.metrics.world_geneval:WorldGenEval",
        "world_clipscore": "benchmarks.metrics.world_clipscore:WorldClipScore",
        "world_aesthetic": "benchmarks.metrics.world_aesthetic:WorldAesthetic",
        "ocr_rapid": "benchmarks.metrics.ocr_rapid:RapidOCRAccuracy",
        "ocr_paddle": "benchmarks.metrics.ocr_paddle:PaddleOCRAccuracy",
        "clipscore": "benchmarks.metrics.clipscore:ClipScore",
        "clipscore_released": "benchmarks.metrics.clipscore_released:ClipScoreReleased",
        "aesthetic": "benchmarks.metrics.aesthetic:Aesthetic",
        "lpips_diversity": "benchmarks.metrics.lpips_diversity:LpipsDiversity",
        "vendi": "benchmarks.metrics.vendi:Vendi",
        "world_vendi": "benchmarks.metrics.world_vendi:WorldVendi",
        "brightness": "benchmarks.metrics.brightness:Brightness",
        "saturation": "benchmarks.metrics.saturation:Saturation",
        "contrast": "benchmarks.metrics.contrast:Contrast",
        "sharpness": "benchmarks.metrics.sharpness:Sharpness",
        "pickscore": "benchmarks.metrics.pickscore:PickScore",
        "hpsv2": "benchmarks.metrics.hpsv2:HPSv2",
        "geneval": "benchmarks.metrics.geneval:GenEval",
        "geneval_strict": "benchmarks.metrics.geneval_strict:GenEvalStrict",
        "geneval_reward": "benchmarks.metrics.geneval_reward:GenEvalReward",
        "geneval_reward_released": "benchmarks.metrics.geneval_reward_released:GenEvalRewardReleased",
        "imagereward": "benchmarks.metrics.imagereward:ImageReward",
    },
    "corpora": {
        "world": "data_curation.world.corpus:WorldCorpus",
        "hy_soar": "data_curation.hy_soar:HYSOAR",
        "folder": "data_curation.image_folder:ImageFolder",
        "webdataset": "data_curation.webdataset:WebDataset",
        "parquet": "data_curation.parquet_files:ParquetFiles",
        "saved_dataset": "data_curation.saved_dataset:SavedDataset",
    },
    "curation": {
        "open": "data_curation.opening:open_corpus",
        "cut": "data_curation.curate:cut",
        "score": "data_curation.scoring:score_corpus",
        "scan": "data_curation.scan:scan",
        "command": "data_curation.command:run",
    },
    "recipes": {
        "vae": "bench.backbone.pretrain.recipes:vae",
        "policy": "bench.backbone.pretrain.recipes:policy",
        "clip": "benchmarks.pretrain_clip:recipe",
        "quality": "benchmarks.backbone_quality:recipe",
    },
    "backbones": {
        "tiny-sd3": "bench.backbone.loader:TINY_SD3",
    },
}
"""Kind → name → ``module:attribute``. The only place outside its own file where a plugin's name stands."""


@cache
def table(kind: str) -> dict[str, str]:
    """All names of a kind with their ``module:attribute``, built-ins first, then installed entry points."""
    installed = {point.name: point.value for point in entry_points(group=f"bench.{kind}")}
    return BUILT_IN[kind] | {name: value for name, value in installed.items() if name not in BUILT_IN[kind]}


def load(kind: str, name: str) -> Any:
    """Import the object registered under ``name``. Raises BenchError for an unknown name or a broken plugin."""
    if name not in table(kind):
        raise unknown(kind.rstrip("s") if kind != "corpora" else "corpus", name, table(kind))
    module_name, _, attribute = table(kind)[name].partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        hint = _shadow(module_name)
        raise BenchError(f"{kind}/{name} ({module_name}:{attribute}) does not load: {error}{hint}") from error


def _shadow(module_name: str) -> str:
    """A hint when one of the harness's top-level folders is shadowed by another package of the same name."""
    top = module_name.partition(".")[0]
    spec = importlib.util.find_spec(top)
    ours = importlib.util.find_spec("bench")
    if spec is None or ours is None or not spec.origin or not ours.origin:
        return ""
    from pathlib import Path

    if Path(spec.origin).parents[1] != Path(ours.origin).parents[1]:
        return f"; another package named {top!r} shadows this project's folder: {spec.origin}"
    return ""


@cache
def summary(kind: str, name: str) -> str:
    """First line of the docstring of the module that defines ``name``, read without importing it."""
    module_name, _, attribute = table(kind)[name].partition(":")
    spec = importlib.util.find_spec(module_name)
    if spec is None or spec.origin is None:
        return "(not importable)"
    with open(spec.origin, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node, after in itertools.pairwise([*tree.body, ast.Pass()]):
        match node:
            case ast.ClassDef() | ast.FunctionDef() if node.name == attribute:
                if doc := ast.get_docstring(node):
                    return doc.partition("\n")[0]
            case ast.Assign(targets=[ast.Name(id=target)]) if target == attribute:
                match after:
                    case ast.Expr(value=ast.Constant(value=str(doc))):
                        return doc.strip().partition("\n")[0]
    return (ast.get_docstring(tree) or "").partition("\n")[0]
