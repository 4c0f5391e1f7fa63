"""Run by test_geneval_parity.py inside .venv-parity-geneval: mmdet's own Mask2Former, GenEval's own code.

``official.py FOLDER`` reads ``task.json`` there and writes ``result.json``. Tasks:

``detect``: inference by mmdet 2 or 3, of a model built from its own Swin-S configuration at the sizes given and filled
strictly with ``checkpoint.pth``, on the PNGs named.
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


class Without(types.ModuleType):
    """Stands where a module would be that is not installed: its names are there, and calling one fails.

    ``mmcv.ops`` looks up all of mmcv's compiled operators when it is imported. The one that Mask2Former uses,
    deformable attention, is computed by mmcv's own PyTorch code wherever the tensors are not on a GPU.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def absent(*_: Any, **__: Any) -> None:
            raise RuntimeError(f"{self.__name__}.{name} is not installed")

        return absent


def detect(folder: Path, task: dict[str, Any]) -> dict[str, Any]:
    """mmdet's instances, best first, by picture."""
    read = {2: mmdet2, 3: mmdet3}[task["mmdet"]](folder, task["sizes"], task.get("floating", False))
    result = {}
    for name in task["pictures"]:
        found = sorted(read(str(folder / name)), key=lambda one: -one[0])
        result[name] = dict(zip(("scores", "labels", "boxes", "pixels"), zip(*found, strict=True), strict=True))
    return result


def mmdet2(folder: Path, sizes: dict[str, Any], floating: bool) -> Any:
    """Reader of a picture by mmdet 2: (score, label, box, pixels of the mask) of each instance."""
    sys.path.insert(0, str(Path(sys.prefix) / "mmdet2"))
    sys.modules["torchvision"] = Without("torchvision")  # mmcv asks it for addresses of models alone
    import mmcv

    mmcv._ext = sys.modules["mmcv._ext"] = Without("mmcv._ext")
    import mmdet
    from mmdet.apis import inference_detector
    from mmdet.models import build_detector

    config = mmcv.Config.fromfile(str(configs(mmdet) / "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.py"))
    head = config.model.panoptic_head
    encoder, decoder = head.pixel_decoder.encoder.transformerlayers, head.transformer_decoder.transformerlayers
    decoder.feedforward_channels = sizes["feed"]
    sized(config.model, sizes, [encoder.attn_cfgs, decoder.attn_cfgs], [encoder.ffn_cfgs, decoder.ffn_cfgs])
    model = filled(build_detector(config.model), folder)
    model.cfg, model.CLASSES = config, tuple(map(str, range(80)))
    config.data.test.pipeline[0].to_float32 = floating

    def read(path: str) -> list[Any]:
        boxes, masks = inference_detector(model, path)
        return [
            (float(box[4]), label, box[:4].tolist(), int(mask.sum()))
            for label in range(80)
            for box, mask in zip(boxes[label], masks[label], strict=True)
        ]

    return read


def mmdet3(folder: Path, sizes: dict[str, Any], floating: bool) -> Any:
    """The same by mmdet 3."""
    import mmcv

    mmcv._ext = sys.modules["mmcv._ext"] = Without("mmcv._ext")
    import mmdet
    from mmdet.apis import inference_detector
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    config = Config.fromfile(str(configs(mmdet) / "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.py"))
    head = config.model.panoptic_head
    encoder, decoder = head.pixel_decoder.encoder.layer_cfg, head.transformer_decoder.layer_cfg
    attentions = [encoder.self_attn_cfg, decoder.self_attn_cfg, decoder.cross_attn_cfg]
    sized(config.model, sizes, attentions, [encoder.ffn_cfg, decoder.ffn_cfg])
    init_default_scope("mmdet")
    model = filled(MODELS.build(config.model), folder)
    model.cfg = config
    config.test_dataloader.dataset.pipeline[0].to_float32 = floating

    def read(path: str) -> list[Any]:
        found = inference_detector(model, path).pred_instances
        pixels = found.masks.flatten(1).sum(1)
        return list(
            zip(found.scores.tolist(), found.labels.tolist(), found.bboxes.tolist(), pixels.tolist(), strict=True)
        )

    return read


def configs(mmdet: Any) -> Path:
    """Where an installed mmdet keeps its configurations of Mask2Former."""
    return Path(mmdet.__file__).parent / ".mim" / "configs" / "mask2former"


def sized(model: Any, sizes: dict[str, Any], attentions: list[Any], feeds: list[Any]) -> None:
    """Bring mmdet's configuration of a Swin-S to the sizes of a small model."""
    width, features, head = sizes["width"], sizes["features"], model.panoptic_head
    model.backbone.update(embed_dims=width, depths=sizes["depths"], num_heads=sizes["heads"], init_cfg=None)
    head.update(
        in_channels=[width * 2**stage for stage in range(4)],
        feat_channels=features,
        out_channels=features,
        num_queries=sizes["queries"],
    )
    head.pixel_decoder.encoder.num_layers = sizes["encoder_layers"]
    head.transformer_decoder.num_layers = sizes["decoder_layers"]
    for positions in (head.positional_encoding, head.pixel_decoder.positional_encoding):
        positions.num_feats = features // 2
    for attention in attentions:
        attention.update(embed_dims=features, num_heads=sizes["deformable_heads"])
    for feed in feeds:
        feed.update(embed_dims=features, feedforward_channels=sizes["feed"])


def filled(model: Any, folder: Path) -> Any:
    """The model with the checkpoint's weights, each of which must have its place and each place its weight."""
    import torch

    constants = {name: value for name, value in model.state_dict().items() if name.endswith("relative_position_index")}
    weights = torch.load(folder / "checkpoint.pth", weights_only=True)["state_dict"]
    assert constants.keys() <= weights.keys()
    model.load_state_dict(weights | constants, strict=True)
    return model.eval()


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
