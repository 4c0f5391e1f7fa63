"""Names to code. Nothing is imported until it is used, so ``bench list`` and ``bench --help`` stay instant.

A built-in is one line below. A package outside this repository adds entries through the entry-point groups
``bench.methods``, ``bench.metrics``, ``bench.subsets``, ``bench.suites``, ``bench.corpora`` and ``bench.backbones``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from bench.errors import BenchError, unknown

BUILT_IN: dict[str, dict[str, str]] = {
    "methods": {
        "sft": "methods.sft:SFT",
        "soar": "methods.soar:SOAR",
        "flow_grpo": "methods.flow_grpo:FlowGRPO",
    },
    "subsets": {
        "all": "data_curation.subsets:ALL",
        "high_aesthetic": "data_curation.subsets:HIGH_AESTHETIC",
        "high_clipscore": "data_curation.subsets:HIGH_CLIPSCORE",
    },
    "suites": {
        "embedded": "benchmarks.suites.embedded:suite",
        "smoke": "benchmarks.suites.smoke:suite",
    },
    "metrics": {
        "world_geneval": "benchmarks.metrics.world_geneval:WorldGenEval",
        "world_clipscore": "benchmarks.metrics.world_clipscore:WorldClipScore",
        "world_aesthetic": "benchmarks.metrics.world_aesthetic:WorldAesthetic",
        "ocr_rapid": "benchmarks.metrics.ocr_rapid:RapidOCRAccuracy",
    },
    "corpora": {
        "world": "data_curation.world.corpus:WorldCorpus",
        "folder": "data_curation.image_folder:ImageFolder",
    },
    "curation": {
        "cut": "data_curation.curate:cut",
    },
    "recipes": {
        "vae": "bench.backbone.pretrain.recipes:vae",
        "policy": "bench.backbone.pretrain.recipes:policy",
        "clip": "benchmarks.pretrain_clip:recipe",
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
        raise BenchError(f"{kind}/{name} ({module_name}:{attribute}) does not load: {error}{_shadow(module_name)}") from error


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
    for i, node in enumerate(tree.body):
        named = isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute
        if named and (doc := ast.get_docstring(node)):  # type: ignore[arg-type]
            return doc.splitlines()[0]
        assigned = isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == attribute for t in node.targets)
        if assigned and i + 1 < len(tree.body):
            after = tree.body[i + 1]
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
                return after.value.value.strip().splitlines()[0]
    return (ast.get_docstring(tree) or "").partition("\n")[0]
