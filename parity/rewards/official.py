"""Scores by the official packages on tiny models of their own classes. Runs inside .venv-parity-rewards.

``official.py PACKAGE FOLDER``: reads ``job.json`` ({"prompts": [...]}) and as many ``0.png``, ``1.png``, … in FOLDER,
writes the package's model as ``checkpoint.pt`` in the package's own format and ``scores.json``.
Only sizes, paths and what would be downloaded are replaced; the classes, preparation and formulas are the packages'.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

HEADS, LAYERS = 2, 2


def image_reward(folder: Path, prompts: list[str]) -> list[float]:
    """image-reward 1.5's ``load`` and ``score``, with a ViT and a BERT of two layers and the folder's ``vocab.txt``."""
    sys.modules["clip"] = ModuleType("clip")  # OpenAI's, which is not on PyPI and not used for this score
    import ImageReward
    from ImageReward.models.BLIP import blip, blip_pretrain
    from ImageReward.models.BLIP.vit import VisionTransformer
    from transformers import BertTokenizer

    blip.BertTokenizer = FromFile(BertTokenizer, folder / "vocab.txt")
    width = 64 * HEADS

    def create_vit(vit: str, image_size: int, *_: object) -> tuple[torch.nn.Module, int]:
        assert vit == "large"
        small: dict[str, Any] = dict(embed_dim=width, depth=LAYERS, num_heads=HEADS, drop_path_rate=0.1)
        return VisionTransformer(img_size=image_size, patch_size=16, **small), width

    blip_pretrain.create_vit = create_vit
    words = len(blip.init_tokenizer())
    config = {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 768,
        "initializer_range": 0.02,
        "intermediate_size": 256,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 64,
        "num_attention_heads": 12,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "add_type_embeddings": False,
        "vocab_size": words,
        "encoder_width": width,
        "add_cross_attention": True,
    }
    (folder / "med_config.json").write_text(json.dumps(config))
    model = ImageReward.ImageReward(med_config=str(folder / "med_config.json"))
    torch.save(randomised(model), folder / "checkpoint.pt")
    model = ImageReward.load(str(folder / "checkpoint.pt"), "cpu", med_config=str(folder / "med_config.json"))
    return [model.score(prompt, str(folder / f"{i}.png")) for i, prompt in enumerate(prompts)]


def hpsv2(folder: Path, prompts: list[str]) -> list[float]:
    """hpsv2x 1.2.0's ``score``, with towers of two layers under the name of ViT-H-14."""
    from hpsv2 import img_score
    from hpsv2.src.open_clip import factory

    factory._MODEL_CONFIGS["ViT-H-14"] = {
        "embed_dim": 96,
        "vision_cfg": {"image_size": 224, "layers": LAYERS, "width": 80 * HEADS, "head_width": 80, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64 * HEADS, "heads": HEADS, "layers": LAYERS},
    }
    create = img_score.create_model_and_transforms
    img_score.create_model_and_transforms = lambda name, weights, **settings: create(name, None, **settings)
    img_score.initialize_model()
    torch.save({"state_dict": randomised(img_score.model_dict["model"])}, folder / "checkpoint.pt")
    checkpoint = str(folder / "checkpoint.pt")
    return [float(img_score.score(str(folder / f"{i}.png"), prompt, checkpoint)[0]) for i, prompt in enumerate(prompts)]


class FromFile:
    """A tokenizer's class that finds its vocabulary in a file, whatever name it is asked for."""

    def __init__(self, tokenizer: Any, vocabulary: Path) -> None:
        self.tokenizer, self.vocabulary = tokenizer, vocabulary

    def from_pretrained(self, name: str) -> Any:
        assert name == "bert-base-uncased"
        return self.tokenizer(str(self.vocabulary))


def randomised(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The model's state with weights that let pictures and texts matter, since fresh ones are nearly constant."""
    generator = torch.Generator().manual_seed(4)
    state = model.state_dict()
    for name, weight in sorted(state.items()):
        if weight.is_floating_point() and weight.ndim:
            scale = weight[0].numel() ** -0.5 if weight.ndim > 1 and "embed" not in name else 0.3
            plus = 1 if weight.ndim == 1 and name.endswith("weight") else 0
            weight.copy_(torch.randn(weight.shape, generator=generator) * scale + plus)
    return state


def main() -> None:
    package, folder = sys.argv[1], Path(sys.argv[2])
    prompts = json.loads((folder / "job.json").read_text())["prompts"]
    scores = {"image_reward": image_reward, "hpsv2": hpsv2}[package](folder, prompts)
    (folder / "scores.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main()
