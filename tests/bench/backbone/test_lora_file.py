"""A LoRA file is used whole, at its own strength, whatever its layout; or it is refused, and the key is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from trained import transformer, velocity

from bench.backbone.lora_file import load_lora
from bench.backbone.weights import LORA, PEFT_CONFIG, PEFT_WEIGHTS
from bench.errors import BenchError

RANKS = {"transformer_blocks.0.attn.to_q": 2, "transformer_blocks.1.attn.to_out.0": 3, "proj_out": 2}
ALPHAS = {"transformer_blocks.0.attn.to_q": 1.0, "transformer_blocks.1.attn.to_out.0": 16.0, "proj_out": 5.0}

Factors = dict[str, tuple[Tensor, Tensor]]


def factors(model: Any) -> Factors:
    """Module → A (r, in) and B (out, r)."""
    generator = torch.Generator().manual_seed(3)
    out = {}
    for name, rank in RANKS.items():
        rows, columns = model.get_submodule(name).weight.shape
        out[name] = (torch.randn(rank, columns, generator=generator), torch.randn(rows, rank, generator=generator))
    return out


def merged(pipeline: Path, alphas: dict[str, float]) -> Any:
    """The transformer with alpha / rank * B @ A added to its weights, by hand."""
    model = transformer(pipeline)
    for name, (a, b) in factors(model).items():
        model.get_submodule(name).weight.data += alphas[name] / RANKS[name] * b @ a
    return model


def keys(given: Factors, first: str, second: str, alpha: str | None = None) -> dict[str, Tensor]:
    """A file's tensors; ``{}`` stands for the module, ``{_}`` for it with ``_`` for every dot."""
    tensors = {}
    for name, (a, b) in given.items():
        tensors[first.format(name, _=name.replace(".", "_"))] = a.clone()
        tensors[second.format(name, _=name.replace(".", "_"))] = b.clone()
        if alpha:
            tensors[alpha.format(name, _=name.replace(".", "_"))] = torch.tensor(ALPHAS[name])
    return tensors


def config(**more: Any) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 5.0,
        "target_modules": list(RANKS),
        "rank_pattern": {"transformer_blocks.1.attn.to_out.0": 3},
        "alpha_pattern": ALPHAS,
        **more,
    }


LAYOUTS = {
    "diffusers": ("transformer.{}.lora_A.weight", "transformer.{}.lora_B.weight", "transformer.{}.alpha"),
    "without a prefix": ("{}.lora_A.weight", "{}.lora_B.weight", "{}.alpha"),
    "with the adapter's name": ("{}.lora_A.default.weight", "{}.lora_B.default.weight", "{}.alpha"),
    "PEFT's prefix": (
        "base_model.model.{}.lora_A.weight",
        "base_model.model.{}.lora_B.weight",
        "base_model.model.{}.alpha",
    ),
    "old diffusers": (
        "transformer.{}.lora.down.weight",
        "transformer.{}.lora.up.weight",
        "transformer.{}.lora.down.weight.alpha",
    ),
    "lora_linear_layer": (
        "{}.lora_linear_layer.down.weight",
        "{}.lora_linear_layer.up.weight",
        "{}.lora_linear_layer.alpha",
    ),
    "OneTrainer": (
        "lora_transformer_{_}.lora_down.weight",
        "lora_transformer_{_}.lora_up.weight",
        "lora_transformer_{_}.alpha",
    ),
}


def check(pipeline: Path, path: Path, alphas: dict[str, float]) -> None:
    model = transformer(pipeline)
    load_lora(model, path)
    torch.testing.assert_close(velocity(model), velocity(merged(pipeline, alphas)), rtol=1e-4, atol=1e-4)
    for name, (a, b) in factors(transformer(pipeline)).items():
        delta = model.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(delta, alphas[name] / RANKS[name] * b @ a)
    other = transformer(pipeline)
    assert not torch.allclose(velocity(model), velocity(other), atol=1e-2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_has_the_strength_of_its_alphas(tiny_pipeline: Path, tmp_path: Path, layout: str) -> None:
    given = factors(transformer(tiny_pipeline))
    save_file(keys(given, *LAYOUTS[layout]), tmp_path / LORA)
    check(tiny_pipeline, tmp_path / LORA, ALPHAS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_alphas_a_layout_has_the_strength_one(tiny_pipeline: Path, tmp_path: Path, layout: str) -> None:
    save_file(keys(factors(transformer(tiny_pipeline)), *LAYOUTS[layout][:2]), tmp_path / LORA)
    check(tiny_pipeline, tmp_path / LORA, {name: float(rank) for name, rank in RANKS.items()})


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_the_metadata_says_the_strength(tiny_pipeline: Path, tmp_path: Path, prefix: str) -> None:
    """Of ``save_lora_adapter`` (no prefix) and of ``save_lora_weights``."""
    given = keys(factors(transformer(tiny_pipeline)), prefix + "{}.lora_A.weight", prefix + "{}.lora_B.weight")
    about = {prefix + key: value for key, value in config().items()}
    save_file(given, tmp_path / LORA, {"format": "pt", "lora_adapter_metadata": json.dumps(about)})
    check(tiny_pipeline, tmp_path / LORA, ALPHAS)


def test_the_keys_of_attention_processors(tiny_pipeline: Path, tmp_path: Path) -> None:
    """Diffusers of early 2023 named factors by their attention's processor, and called ``to_out.0`` ``to_out``."""
    tensors = keys(
        factors(transformer(tiny_pipeline)), "transformer.{}.lora.down.weight", "transformer.{}.lora.up.weight"
    )
    for module, old in (
        ("0.attn.to_q", "0.attn.processor.to_q_lora"),
        ("1.attn.to_out.0", "1.attn.processor.to_out_lora"),
    ):
        for half in ("down", "up"):
            key = f"transformer.transformer_blocks.{module}.lora.{half}.weight"
            tensors[f"transformer.transformer_blocks.{old}.{half}.weight"] = tensors.pop(key)
    save_file(tensors, tmp_path / LORA)
    check(tiny_pipeline, tmp_path / LORA, {name: float(rank) for name, rank in RANKS.items()})


def test_what_diffusers_own_savers_write_is_read(tiny_pipeline: Path, tmp_path: Path) -> None:
    from trained import adapted

    model = adapted(tiny_pipeline)
    model.save_lora_adapter(tmp_path)
    loaded = transformer(tiny_pipeline)
    load_lora(loaded, tmp_path / LORA)
    assert torch.equal(velocity(loaded), velocity(model))


def test_a_peft_folder(tiny_pipeline: Path, tmp_path: Path) -> None:
    given = factors(transformer(tiny_pipeline))
    save_file(keys(given, *LAYOUTS["PEFT's prefix"][:2]), tmp_path / PEFT_WEIGHTS)
    (tmp_path / PEFT_CONFIG).write_text(json.dumps(config()))
    check(tiny_pipeline, tmp_path / PEFT_WEIGHTS, ALPHAS)
    (tmp_path / PEFT_CONFIG).write_text(json.dumps(config(use_rslora=True)))
    root = {name: alpha * RANKS[name] ** 0.5 for name, alpha in ALPHAS.items()}  # alpha / sqrt(rank)
    check(tiny_pipeline, tmp_path / PEFT_WEIGHTS, root)


def test_a_configuration_beside_a_file_of_diffusers_says_what_the_file_does_not(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    given = keys(factors(transformer(tiny_pipeline)), *LAYOUTS["diffusers"][:2])
    save_file(given, tmp_path / LORA)
    (tmp_path / PEFT_CONFIG).write_text(json.dumps(config()))
    check(tiny_pipeline, tmp_path / LORA, ALPHAS)
    twice = {key: 2 * value for key, value in ALPHAS.items()}
    about = json.dumps({f"transformer.{key}": value for key, value in config(alpha_pattern=twice).items()})
    save_file(given, tmp_path / LORA, {"lora_adapter_metadata": about})
    check(tiny_pipeline, tmp_path / LORA, twice)


def test_dora_is_used(tiny_pipeline: Path, tmp_path: Path) -> None:
    """DoRA's weight is m * (W + B A) / |W + B A|, with the norm of each output's row (arXiv 2402.09353, eq. 5)."""
    model, tensors = transformer(tiny_pipeline), {}
    for name, (a, b) in factors(model).items():
        layer = model.get_submodule(name)
        size = torch.rand(len(layer.weight), generator=torch.Generator().manual_seed(1)) + 0.5
        moved = layer.weight.data + b @ a
        layer.weight.data = size[:, None] * moved / moved.norm(dim=1, keepdim=True)
        tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b, f"{name}.lora_magnitude_vector": size}
    save_file(tensors, tmp_path / LORA)
    loaded = transformer(tiny_pipeline)
    load_lora(loaded, tmp_path / LORA)
    torch.testing.assert_close(velocity(loaded), velocity(model), rtol=1e-4, atol=1e-4)


# -- Stability's own names -------------------------------------------------------------------------------------------

DIM, PATCH = 32, 16
BLOCK = {
    "attn.qkv": (DIM, 3 * DIM),
    "attn.proj": (DIM, DIM),
    "mlp.fc1": (DIM, 4 * DIM),
    "mlp.fc2": (4 * DIM, DIM),
    "adaLN_modulation.1": (DIM, 6 * DIM),
}


def sd35() -> Any:
    """A transformer of two blocks, the first with two attentions, as SD3.5-Medium's first thirteen have."""
    from diffusers import SD3Transformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SD3Transformer2DModel(
            sample_size=4,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=16,
            joint_attention_dim=24,
            caption_projection_dim=DIM,
            pooled_projection_dim=20,
            pos_embed_max_size=4,
            dual_attention_layers=(0,),
        ).eval()


def stability() -> dict[str, tuple[int, int]]:
    """Layers of Stability's MMDiT of that size → (inputs, outputs)."""
    blocks = {
        f"joint_blocks.{i}.{side}_block.{n}": s for i in (0, 1) for side in ("x", "context") for n, s in BLOCK.items()
    }
    blocks |= {"joint_blocks.0.x_block.attn2.qkv": (DIM, 3 * DIM), "joint_blocks.0.x_block.attn2.proj": (DIM, DIM)}
    blocks["joint_blocks.0.x_block.adaLN_modulation.1"] = (DIM, 9 * DIM)
    blocks["joint_blocks.1.context_block.adaLN_modulation.1"] = (DIM, 2 * DIM)
    for name in ("attn.proj", "mlp.fc1", "mlp.fc2"):  # the last block gives no context
        del blocks[f"joint_blocks.1.context_block.{name}"]
    blocks |= {"context_embedder": (24, DIM), "final_layer.linear": (DIM, PATCH)}
    blocks |= {"final_layer.adaLN_modulation.1": (DIM, 2 * DIM)}
    for name, width in (("t_embedder", 256), ("y_embedder", 20)):
        blocks |= {f"{name}.mlp.0": (width, DIM), f"{name}.mlp.2": (DIM, DIM)}
    return blocks


def converted(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of Stability's, by the converter of diffusers."""
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    whole = {f"{name}.weight": value for name, value in weights.items()}
    whole |= {f"{name}.bias": torch.zeros(len(value)) for name, value in weights.items()}
    whole |= {"pos_embed": torch.zeros(1), "x_embedder.proj.weight": torch.zeros(DIM, 4, 2, 2)}
    return dict(convert_sd3_transformer_checkpoint_to_diffusers(whole | {"x_embedder.proj.bias": torch.zeros(DIM)}))


@pytest.mark.parametrize("layout", ["kohya", "ComfyUI"])
def test_stabilitys_names_are_those_of_diffusers(tmp_path: Path, layout: str) -> None:
    generator = torch.Generator().manual_seed(4)
    tensors, changes = {}, {}
    for number, (name, (inputs, outputs)) in enumerate(stability().items()):
        a, b = torch.randn(2, inputs, generator=generator), torch.randn(outputs, 2, generator=generator)
        if layout == "kohya":
            flat, alpha = f"lora_unet_{name.replace('.', '_')}", 1.0 + number
            tensors |= {
                f"{flat}.lora_down.weight": a,
                f"{flat}.lora_up.weight": b,
                f"{flat}.alpha": torch.tensor(alpha),
            }
        else:
            alpha = 2.0
            tensors |= {f"diffusion_model.{name}.lora_A.weight": a, f"diffusion_model.{name}.lora_B.weight": b}
        changes[name] = alpha / 2 * b @ a
    save_file(tensors, tmp_path / LORA)
    model = sd35()
    load_lora(model, tmp_path / LORA)
    expected = {k.removesuffix(".weight"): v for k, v in converted(changes).items() if k.endswith(".weight")}
    del expected["pos_embed.proj"]
    found = {n: m.get_delta_weight("default") for n, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


# -- what is refused -------------------------------------------------------------------------------------------------

FIRST = "transformer.transformer_blocks.0.attn.to_q"


def without(key: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.pop(key)


def added(**more: Tensor) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.update({key.replace("__", "."): value for key, value in more.items()})


LEFT_OVER: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "no second half": (without(f"{FIRST}.lora_B.weight"), "lacks lora_B.weight of transformer_blocks.0.attn.to_q"),
    "no first half": (without(f"{FIRST}.lora_A.weight"), "lacks lora_A.weight of transformer_blocks.0.attn.to_q"),
    "a block too many": (
        added(
            transformer__transformer_blocks__7__attn__to_q__lora_A__weight=torch.ones(2, 32),
            transformer__transformer_blocks__7__attn__to_q__lora_B__weight=torch.ones(32, 2),
        ),
        "has no layer for transformer.transformer_blocks.7.attn.to_q.lora_A.weight",
    ),
    "a lone alpha": (added(transformer__context_embedder__alpha=torch.tensor(4.0)), "no weights for context_embedder"),
    "no number": (
        added(transformer__proj_out__alpha=torch.tensor(float("nan"))),
        "transformer.proj_out.alpha is no alpha",
    ),
    "no strength": (added(transformer__proj_out__alpha=torch.tensor(0.0)), "transformer.proj_out.alpha is no alpha"),
    "kohya's DoRA": (
        added(transformer__proj_out__dora_scale=torch.ones(16, 1)),
        "transformer.proj_out.dora_scale has an unknown",
    ),
    "LoHa": (added(transformer__proj_out__hada_w1_a=torch.ones(2, 2)), "transformer.proj_out.hada_w1_a has an unknown"),
    "a whole weight": (
        added(transformer__proj_out__weight=torch.ones(16, 32)),
        "transformer.proj_out.weight has an unknown",
    ),
    "a part of DoRA": (
        added(transformer__proj_out__lora_magnitude_vector=torch.ones(16)),
        "lacks transformer_blocks.0.attn.to_q.lora_magn",
    ),
    "twice": (
        added(transformer__proj_out__lora__down__weight=torch.ones(2, 32)),
        "transformer.proj_out.lora_A.weight are the same part of proj_out",
    ),
    "kohya's text encoder": (
        added(lora_te1_text_model_a__lora_down__weight=torch.ones(1, 1)),
        "it changes lora_te1, and only a transformer",
    ),
    "inputs of another width": (
        added(transformer__proj_out__lora_A__weight=torch.ones(2, 31)),
        r"proj_out.lora_A.weight has the shape \(2, 31\)",
    ),
    "outputs of another width": (
        added(transformer__proj_out__lora_B__weight=torch.ones(15, 2)),
        r"transformer.proj_out.lora_B.weight has the shape \(15, 2\)",
    ),
    "ranks that differ": (
        added(transformer__proj_out__lora_B__weight=torch.ones(16, 4)),
        r"proj_out.lora_B.weight has the",
    ),
    "not a number": (
        added(transformer__proj_out__lora_B__weight=torch.full((16, 2), float("nan"))),
        "lora_B.weight holds values that are no",
    ),
    "nothing": (dict.clear, "it holds no tensor"),
}


def refused(pipeline: Path, path: Path, line: str) -> None:
    with pytest.raises(BenchError, match=line) as caught:
        load_lora(transformer(pipeline), path)
    assert str(caught.value).startswith(f"{path} is no LoRA for this transformer: ")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize("case", LEFT_OVER)
def test_what_cannot_be_used_is_named(tiny_pipeline: Path, tmp_path: Path, case: str) -> None:
    spoil, line = LEFT_OVER[case]
    tensors = keys(factors(transformer(tiny_pipeline)), *LAYOUTS["diffusers"][:2])
    spoil(tensors)
    save_file(tensors, tmp_path / LORA)
    refused(tiny_pipeline, tmp_path / LORA, line)


def test_hundreds_of_keys_are_a_few_names_and_a_number(tiny_pipeline: Path, tmp_path: Path) -> None:
    save_file({f"unet.blocks.{i}.lora_A.weight": torch.ones(1, 1) for i in range(213)}, tmp_path / LORA)
    refused(tiny_pipeline, tmp_path / LORA, "and 210 more")


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"lora_alpha": None}, "does not say lora_alpha"),
        ({"lora_alpha": float("inf")}, "it holds Infinity, which is no JSON"),
        ({"r": "2"}, "does not say r, a finite"),
        ({"peft_type": "LOHA"}, "says that it is LOHA"),
        ({"stronger": 2}, "has stronger, which this version of peft does not know"),
        ({"target_modules": ["proj_out"]}, "makes no layer for transformer_blocks.0.attn.to_q.lora_A.weight"),
        ({"target_modules": [*RANKS, "context_embedder"]}, "it lacks context_embedder.lora_A.weight"),
        ({"target_modules": ["nothing.there"]}, "[Tt]arget modules"),
        ({"rank_pattern": {}}, r"transformer_blocks.1.attn.to_out.0.lora_A.weight has the shape \(3, "),
        ({"use_dora": True}, "it lacks proj_out.lora_magnitude_vector.weight"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(
    tiny_pipeline: Path, tmp_path: Path, more: dict[str, Any], line: str
) -> None:
    save_file(keys(factors(transformer(tiny_pipeline)), *LAYOUTS["PEFT's prefix"][:2]), tmp_path / PEFT_WEIGHTS)
    (tmp_path / PEFT_CONFIG).write_text(json.dumps(config(**more)))
    refused(tiny_pipeline, tmp_path / PEFT_WEIGHTS, line)


@pytest.mark.parametrize("text", ["[]", "{", "null"])
def test_a_damaged_configuration_is_named(tiny_pipeline: Path, tmp_path: Path, text: str) -> None:
    tensors = keys(factors(transformer(tiny_pipeline)), *LAYOUTS["PEFT's prefix"][:2])
    save_file(tensors, tmp_path / PEFT_WEIGHTS)
    (tmp_path / PEFT_CONFIG).write_text(text)
    refused(tiny_pipeline, tmp_path / PEFT_WEIGHTS, PEFT_CONFIG)
    save_file(tensors, tmp_path / LORA, {"lora_adapter_metadata": text})
    refused(tiny_pipeline, tmp_path / LORA, "lora_adapter_metadata")


def test_an_alpha_that_contradicts_the_configuration_is_named(tiny_pipeline: Path, tmp_path: Path) -> None:
    tensors = keys(factors(transformer(tiny_pipeline)), *LAYOUTS["diffusers"])
    tensors["transformer.proj_out.alpha"] = torch.tensor(7.0)
    save_file(tensors, tmp_path / LORA, {"lora_adapter_metadata": json.dumps(config())})
    refused(tiny_pipeline, tmp_path / LORA, "proj_out has the alpha 7, and 5 in its configuration")


def test_a_file_that_is_none_is_named(tiny_pipeline: Path, tmp_path: Path) -> None:
    for content in (b"", b"12345", b"\xff" * 64, (8).to_bytes(8, "little") + b'{"a":1} '):
        (tmp_path / LORA).write_bytes(content)
        refused(tiny_pipeline, tmp_path / LORA, "[Hh]eader|tensor")


def test_the_bytes_that_a_job_leaves_are_read_as_they_are(tiny_pipeline: Path, tmp_path: Path) -> None:
    from trained import adapted

    from bench.backbone.weights import save_weights

    save_weights(adapted(tiny_pipeline), tmp_path)
    assert len(load_file(tmp_path / LORA)) == 8
    loaded = transformer(tiny_pipeline)
    load_lora(loaded, tmp_path / LORA)
    assert torch.equal(velocity(loaded), velocity(adapted(tiny_pipeline)))
