"""Run by test_geneval_parity.py inside .venv-parity-geneval: mmdet's own Mask2Former, GenEval's own code, open_clip.

``official.py FOLDER`` reads ``task.json`` there and writes ``result.json``. Tasks:

``detect``: mmdet's inference, of a model built from its own Swin-S configuration at the sizes given and filled strictly
with ``checkpoint.pth``, on the PNGs named: resized as 8-bit pixels, as by mmdet 2.x, which GenEval runs on, and in
floating point, as mmdet 3.x's own configuration says.
``decide``: GenEval's ``evaluate`` and the reward server's ``evaluate_reward``, cut out of their own files, on boxes and
colours given.
"""

from __future__ import annotations

import ast
import json
import sys
import types
from pathlib import Path
from typing import Any


class WithoutOperators(types.ModuleType):
    """Stands where mmcv's compiled operators would be: their names are there, and calling one fails.

    ``mmcv.ops`` looks all of them up when it is imported. The one that Mask2Former uses, deformable attention, is
    computed by mmcv's own PyTorch code wherever the tensors are not on a GPU.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def absent(*_: Any, **__: Any) -> None:
            raise RuntimeError(f"mmcv-lite has no compiled operator {name}")

        return absent


def detect(folder: Path, task: dict[str, Any]) -> dict[str, Any]:
    """mmdet's instances, best first, of each picture and way of resizing."""
    import mmcv

    mmcv._ext = sys.modules["mmcv._ext"] = WithoutOperators("mmcv._ext")
    import mmdet
    import torch
    from mmdet.apis import inference_detector
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    configs = Path(mmdet.__file__).parent / ".mim" / "configs" / "mask2former"
    config = Config.fromfile(str(configs / "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.py"))
    sized(config.model, task["sizes"])
    init_default_scope("mmdet")
    model = MODELS.build(config.model).eval()
    weights = torch.load(folder / "checkpoint.pth", weights_only=True)["state_dict"]
    constants = {name: value for name, value in model.state_dict().items() if name.endswith("relative_position_index")}
    model.load_state_dict(weights | constants, strict=True)
    model.cfg = config
    pipeline = config.test_dataloader.dataset.pipeline
    result = {}
    for way, floating in (("8 bits", False), ("floating point", True)):
        pipeline[0].to_float32 = floating
        for name in task["pictures"]:
            found = inference_detector(model, str(folder / name)).pred_instances
            order = found.scores.argsort(descending=True, stable=True)
            result[f"{name}, {way}"] = {
                "labels": found.labels[order].tolist(),
                "scores": found.scores[order].tolist(),
                "boxes": found.bboxes[order].tolist(),
                "pixels": found.masks[order].flatten(1).sum(1).tolist(),
            }
    return result


def sized(model: Any, sizes: dict[str, Any]) -> None:
    """Bring mmdet's configuration of a Swin-S to the sizes of a small model."""
    width, features = sizes["width"], sizes["features"]
    model.backbone.update(
        embed_dims=width, depths=sizes["depths"], num_heads=sizes["heads"], init_cfg=None, drop_path_rate=0.0
    )
    head = model.panoptic_head
    head.update(
        in_channels=[width * 2**stage for stage in range(4)],
        feat_channels=features,
        out_channels=features,
        num_queries=sizes["queries"],
    )
    for positions in (head.positional_encoding, head.pixel_decoder.positional_encoding):
        positions.num_feats = features // 2
    encoder, decoder = head.pixel_decoder.encoder, head.transformer_decoder
    encoder.num_layers, decoder.num_layers = sizes["encoder_layers"], sizes["decoder_layers"]
    for part in (encoder.layer_cfg, decoder.layer_cfg):
        for name, settings in part.items():
            settings.embed_dims = features
            if name.endswith("attn_cfg"):
                settings.num_heads = sizes["deformable_heads"]
            else:
                settings.feedforward_channels = sizes["feed"]


def decide(folder: Path, task: dict[str, Any]) -> list[dict[str, Any]]:
    """What the two repositories' own functions say of each case's objects."""
    evaluate = cut(folder / "evaluate_images.py", ("relative_position", "evaluate"))["evaluate"]
    evaluate_reward = cut(folder / "gen_eval.py", ("relative_position", "evaluate_reward"))["evaluate_reward"]
    result = []
    for case in task["cases"]:
        objects: dict[str, list[Any]] = {}
        colours = {}
        for number, one in enumerate(case["found"]):
            box = array([*one["box"], one["confidence"]])
            objects.setdefault(one["name"], []).append((box, number))
            colours[number] = one["color"]
        strict, reward, _ = evaluate_reward(colours, objects, case["facts"])
        result.append({"correct": evaluate(colours, objects, case["facts"])[0], "strict": strict, "reward": reward})
    return result


def array(values: list[float]) -> Any:
    """As mmdet 2.x gives a box and its confidence."""
    import numpy as np

    return np.array(values, np.float32)


def cut(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """These functions of a file, wherever they stand in it, run with nothing else of it.

    Their colours are looked up: what the functions take for the picture is the colour of each object's number.
    """
    import numpy as np

    functions = {node.name: node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    scope: dict[str, Any] = {
        "np": np,
        "POSITION_THRESHOLD": 0.1,
        "COLORS": ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"],
        "color_classification": lambda colours, objects, name: [colours[number] for _, number in objects],
    }
    exec(compile(ast.Module([functions[name] for name in names], []), str(path), "exec"), scope)
    return scope


def main() -> None:
    """Do the folder's task."""
    folder = Path(sys.argv[1])
    task = json.loads((folder / "task.json").read_text())
    done = {"detect": detect, "decide": decide}[task["task"]](folder, task)
    (folder / "result.json").write_text(json.dumps(done))


if __name__ == "__main__":
    main()
