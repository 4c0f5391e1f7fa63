"""Names to code. Nothing is imported until it is used, so ``bench list`` and ``bench --help`` stay instant.

A built-in is one line below. A package outside this repository adds entries through the entry-point groups
``bench.methods``, ``bench.metrics``, ``bench.probes``, ``bench.subsets``, ``bench.suites``, ``bench.corpora`` and
``bench.backbones``. A method in a single file is added by its path (``bench/plugins/files.py``).
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from bench.errors import BenchError, unknown

BUILT_IN: dict[str, dict[str, str]] = {
    "methods": {
        "sft": "methods.sft:SFT",
        "soar": "methods.soar:SOAR",
        "input_perturbation": "methods.input_perturbation:InputPerturbation",
        "reflexflow": "methods.reflexflow:ReflexFlow",
        "mixflow": "methods.mixflow:MixFlow",
        "flow_grpo": "methods.flow_grpo:FlowGRPO",
        "diffusion_nft": "methods.diffusion_nft:DiffusionNFT",
        "dpo": "methods.dpo:DPO",
        "leap_align": "methods.leap_align:LeapAlign",
    },
    "subsets": {
        "all": "data_curation.subsets:ALL",
        "high_aesthetic": "data_curation.subsets:HIGH_AESTHETIC",
        "high_clipscore": "data_curation.subsets:HIGH_CLIPSCORE",
        "random": "data_curation.subsets:RANDOM",
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
    "probes": {
        "heldout_loss": "benchmarks.probes.heldout_loss:HeldOutLoss",
        "one_step_gap": "benchmarks.probes.one_step_gap:OneStepGap",
        "k_step_gap": "benchmarks.probes.k_step_gap:KStepGap",
        "response": "benchmarks.probes.response:Response",
        "slowness": "benchmarks.probes.slowness:Slowness",
        "variance_error": "benchmarks.probes.variance_error:VarianceError",
        "velocity_norm": "benchmarks.probes.velocity_norm:VelocityNorm",
        "noise_ratio": "benchmarks.probes.noise_ratio:NoiseRatio",
        "recovery": "benchmarks.probes.recovery:Recovery",
        "step_error": "benchmarks.probes.step_error:StepError",
    },
    "corpora": {
        "world": "data_curation.world.corpus:WorldCorpus",
        "world_preferences": "data_curation.world.preferences:WorldPreferences",
        "world_holdout": "data_curation.world.corpus:WorldHoldout",
        "hy_soar": "data_curation.hy_soar:HYSOAR",
        "folder": "data_curation.image_folder:ImageFolder",
        "webdataset": "data_curation.webdataset:WebDataset",
        "parquet": "data_curation.parquet_files:ParquetFiles",
        "saved_dataset": "data_curation.saved_dataset:SavedDataset",
    },
    "curation": {
        "open": "data_curation.opening:open_corpus",
        "cut": "data_curation.curate:cut",
        "hold_out": "data_curation.holdout:hold_out",
        "alike": "data_curation.holdout:alike",
        "pair_up": "data_curation.preferences:pair_up",
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

DEFAULT_METHODS = ("sft", "soar", "flow_grpo")
"""What a run compares by default: the three of the SOAR paper's Figure 3."""

ADDED: dict[str, dict[str, str]] = {}
"""The same, of what this process was given by its path."""


@cache
def table(kind: str) -> dict[str, str]:
    """All names of a kind with their ``module:attribute``: built-ins, then installed entry points, then files."""
    installed = {point.name: point.value for point in entry_points(group=f"bench.{kind}")}
    outside = installed | ADDED.get(kind, {})
    return BUILT_IN[kind] | {name: value for name, value in outside.items() if name not in BUILT_IN[kind]}


def add(kind: str, name: str, value: str) -> None:
    """Register ``module:attribute`` for this process; the module is imported already."""
    ADDED.setdefault(kind, {})[name] = value
    table.cache_clear()
    summary.cache_clear()


NAMED = ("metrics", "probes", "subsets", "suites")
"""Kinds whose objects have a ``name``, under which records and caches know them."""


def load(kind: str, name: str) -> Any:
    """Import the object registered under ``name``.

    Raises:
        BenchError: an unknown name, a broken plugin, or one that gives itself another name. That of a suite is known
            when its function is called.
    """
    if name not in table(kind):
        raise unknown(kind.rstrip("s") if kind != "corpora" else "corpus", name, table(kind))
    module_name, _, attribute = table(kind)[name].partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # whatever a stranger's module raises
        other = shadow(module_name)
        hint = f"; another package named {other.parent.name!r} shadows this project's folder: {other}" if other else ""
        what = str(error) if isinstance(error, (ImportError, AttributeError)) else f"{type(error).__name__}: {error}"
        raise BenchError(f"{kind}/{name} ({module_name}:{attribute}) does not load: {what}{hint}") from error
    if kind == "suites":
        return lambda: _named(found(), kind, name)
    return _named(found, kind, name) if kind in NAMED else found


def _named(found: Any, kind: str, name: str) -> Any:
    """The object, if its name is the registered one: else it would be taken for the one that has its name."""
    if (own := getattr(found, "name", None)) != name:
        raise BenchError(f"{kind}/{name} ({table(kind)[name]}) has the name {own!r}; give it the name {name!r}")
    return found


def find(module_name: str) -> Path | None:
    """The file of a module, which is not imported (its packages are); None if there is none."""
    try:
        spec = importlib.util.find_spec(module_name)
    except Exception:  # whatever a stranger's package raises
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def shadow(module_name: str) -> Path | None:
    """The file of another package that Python finds before this project's folder of the same name; None if none is."""
    top, ours = find(module_name.partition(".")[0]), find("bench")
    if top is None or ours is None or top.parents[1] == ours.parents[1]:
        return None
    return top if (ours.parents[1] / top.parent.name).is_dir() else None


@cache
def summary(kind: str, name: str) -> str:
    """First line of the docstring of the module that defines ``name``, read without importing it."""
    module_name, _, attribute = table(kind)[name].partition(":")
    tree = _source(module_name)
    if tree is None:
        return "(not importable)"
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


def declared(kind: str, name: str) -> dict[str, dict[str, Any]]:
    """What the body of a class says, read without importing it: its functions, and attributes that are calls.

    Returns:
        Name → the plain keywords of the call: ``needs = Needs(pairs=True)`` gives ``{"needs": {"pairs": True}}``, and a
        function gives ``{}``. Base classes in the same file count, other files do not.
    """
    module_name, _, attribute = table(kind)[name].partition(":")
    tree = _source(module_name)
    classes = {node.name: node for node in (tree.body if tree else ()) if isinstance(node, ast.ClassDef)}

    def read(name: str) -> dict[str, dict[str, Any]]:
        parts: dict[str, dict[str, Any]] = {}
        if (node := classes.pop(name, None)) is None:
            return parts
        for base in reversed(node.bases):
            parts |= read(base.id) if isinstance(base, ast.Name) else {}
        for part in node.body:
            match part:
                case ast.FunctionDef():
                    parts[part.name] = {}
                case (
                    ast.Assign(targets=[ast.Name(id=target)], value=ast.Call(keywords=keywords))
                    | ast.AnnAssign(target=ast.Name(id=target), value=ast.Call(keywords=keywords))
                ):
                    plain = {k.arg: k.value.value for k in keywords if k.arg and isinstance(k.value, ast.Constant)}
                    parts[target] = plain
        return parts

    return read(attribute)


def _source(module_name: str) -> ast.Module | None:
    """A module's syntax tree; None where there is none to read."""
    path = find(module_name)
    try:
        return ast.parse(path.read_bytes()) if path else None  # of bytes, which may begin with a byte-order mark
    except (OSError, SyntaxError, ValueError):
        return None
