"""LoRA files, in the layouts that people publish for SD3: every tensor of a file is used, or the file is refused.

=====================================  ===============================================================================
layout                                 key of the first factor
=====================================  ===============================================================================
diffusers (``save_lora_weights``)      ``transformer.<module>.lora_A.weight``
diffusers (``save_lora_adapter``)      ``<module>.lora_A.weight``
PEFT                                   ``base_model.model.<module>.lora_A.weight``, with ``adapter_config.json``
old diffusers                          ``<module>.lora.down.weight``, ``.lora_linear_layer.``, ``.processor.to_q_lora.``
kohya (``networks/lora_sd3.py``)       ``lora_unet_<module of Stability's own code>.lora_down.weight``, with ``.alpha``
OneTrainer                             ``lora_transformer_<module>.lora_down.weight``, with ``.alpha``
ComfyUI                                ``diffusion_model.<module of Stability's own code>.lora_A.weight``
=====================================  ===============================================================================

The change of a weight is ``alpha / rank * B @ A``. Alpha is what the configuration says (in the file's metadata, or
beside a PEFT file), or what the ``.alpha`` keys say. Without either it is equal to the rank, as
in all these tools.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import records
from bench.backbone.weights import ADAPTER_KEY, LORA, PEFT_CONFIG, PEFT_WEIGHTS, TRANSFORMER
from bench.errors import BenchError, some

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from torch import Tensor

ADAPTER = "default"
"""Name of the adapter on the model, PEFT's own."""

A, B, BIAS, MAGNITUDE, ALPHA = "lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_magnitude_vector.weight", "alpha"
"""Parts of an adapter's layer, as PEFT names them. The magnitude is DoRA's; the bias belongs to the second factor."""

_PARTS = (
    (re.compile(rf"\.lora_A(\.{ADAPTER})?\.weight$"), A),
    (re.compile(rf"\.lora_B(\.{ADAPTER})?\.weight$"), B),
    (re.compile(rf"\.lora_B(\.{ADAPTER})?\.bias$"), BIAS),
    (re.compile(rf"\.lora_magnitude_vector(\.{ADAPTER})?(\.weight)?$"), MAGNITUDE),
    (re.compile(r"(\.lora_|\.lora\.|\.lora_linear_layer\.|_lora\.)down\.weight$"), A),
    (re.compile(r"(\.lora_|\.lora\.|\.lora_linear_layer\.|_lora\.)up\.weight$"), B),
    (re.compile(r"(\.lora|\.lora_linear_layer|_lora)?\.alpha$"), ALPHA),
)
_PREFIX = re.compile(
    rf"(base_model\.model\.)?({TRANSFORMER}\.|model\.diffusion_model\.|diffusion_model\.|lora_unet_|lora_transformer_)?"
)
_TEXT_ENCODER = re.compile(r"(base_model\.model\.)?(text_encoder(_\d)?(?=\.)|lora_te\d?(?=_)|text_model(?=\.))")

_BLOCK = r"transformer_blocks\.(\d+)\."
_STABILITY = (
    (_BLOCK + r"(attn2?)\.to_[qkv]", r"joint_blocks.\1.x_block.\2.qkv"),
    (_BLOCK + r"(attn2?)\.to_out\.0", r"joint_blocks.\1.x_block.\2.proj"),
    (_BLOCK + r"attn\.add_[qkv]_proj", r"joint_blocks.\1.context_block.attn.qkv"),
    (_BLOCK + r"attn\.to_add_out", r"joint_blocks.\1.context_block.attn.proj"),
    (_BLOCK + r"ff\.net\.0\.proj", r"joint_blocks.\1.x_block.mlp.fc1"),
    (_BLOCK + r"ff\.net\.2", r"joint_blocks.\1.x_block.mlp.fc2"),
    (_BLOCK + r"ff_context\.net\.0\.proj", r"joint_blocks.\1.context_block.mlp.fc1"),
    (_BLOCK + r"ff_context\.net\.2", r"joint_blocks.\1.context_block.mlp.fc2"),
    (_BLOCK + r"norm1\.linear", r"joint_blocks.\1.x_block.adaLN_modulation.1"),
    (_BLOCK + r"norm1_context\.linear", r"joint_blocks.\1.context_block.adaLN_modulation.1"),
    (r"pos_embed\.proj", "x_embedder.proj"),
    (r"time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r"time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
    (r"time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
    (r"time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
    (r"norm_out\.linear", "final_layer.adaLN_modulation.1"),
    (r"proj_out", "final_layer.linear"),
)
"""A module of diffusers → the one of Stability's own code that it is (a part of).

Source: ``convert_sd3_transformer_checkpoint_to_diffusers``, which takes whole checkpoints alone."""


@dataclass(frozen=True)
class LoraFile:
    """What a file holds for a transformer.

    Attributes:
        layers: module → part → tensor, under PEFT's names.
        alphas: module → alpha, of the keys that say one.
        config: PEFT's, where the file or its neighbour has one.
    """

    layers: dict[str, dict[str, Tensor]]
    alphas: dict[str, float]
    config: LoraConfig | None


def load_lora(transformer: Any, path: Path) -> None:
    """Put an adapter on a transformer, at the strength that its file says, and set evaluation mode.

    Raises:
        BenchError: one line that names the file and what in it cannot be used.
    """
    import torch

    try:
        _put_on(transformer, read_lora(transformer, path))
    except (records.DiskFull, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a stranger's file brings about, it costs no other row anything
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BenchError(f"{path} is no LoRA for this transformer: {reason}") from error
    transformer.eval()


def read_lora(transformer: Any, path: Path) -> LoraFile:
    """Sort a file's tensors by the modules of ``transformer``. ValueError or BenchError where one has no place."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in sorted(file.keys())}
        metadata = dict(file.metadata() or {})
    if not tensors:
        raise ValueError("it holds no tensor")
    if others := {match[2] for key in tensors if (match := _TEXT_ENCODER.match(key))}:
        raise ValueError(f"it changes {', '.join(sorted(others))}, and only a transformer is evaluated")
    config = _config(path, metadata)
    modules = _modules(transformer)
    layers: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    came_from: dict[tuple[str, str], str] = {}
    strange, homeless = [], []
    for key, tensor in tensors.items():
        name, part = _split(key)
        if part is None:
            strange.append(key)
            continue
        targets = modules.get(name.replace(".", "_"))
        if targets is None:
            homeless.append(key)
            continue
        for target in targets:
            if (earlier := came_from.setdefault((target.module, part), key)) != key:
                raise ValueError(f"{earlier} and {key} are the same part of {target.module}")
            if part == ALPHA:
                alphas[target.module] = _alpha(key, tensor)
            else:
                layers.setdefault(target.module, {})[part] = target.of(key, part, tensor)
    if strange:
        raise ValueError(f"{some(strange, 3)} has an unknown layout; LoRA and PEFT's DoRA are read")
    if homeless:
        raise ValueError(f"the transformer has no layer for {some(homeless, 3)}")
    if lonely := sorted(alphas.keys() - layers.keys()):
        raise ValueError(f"it has an alpha but no weights for {some(lonely, 3)}")
    return LoraFile(layers, alphas, config)


@dataclass(frozen=True)
class _Target:
    """A module that a key stands for, or rows of a larger one.

    Attributes:
        first, rows, of_rows: where its rows are in the module that the key names, which has ``of_rows``.
        swapped: the two halves of its rows come in the other order (diffusers' scale and shift).
    """

    module: str
    first: int
    rows: int
    of_rows: int
    swapped: bool = False

    def of(self, key: str, part: str, tensor: Tensor) -> Tensor:
        """This module's share of a tensor; the first factor is everyone's."""
        import torch

        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{key} holds values that are no finite numbers")
        if part == A:
            return tensor
        if tensor.shape[:1] != (self.of_rows,):
            raise ValueError(f"{key} has the shape {tuple(tensor.shape)}, and its layer has {self.of_rows} outputs")
        own = tensor[self.first : self.first + self.rows]
        return torch.cat([*reversed(own.chunk(2))]) if self.swapped else own


def _split(key: str) -> tuple[str, str | None]:
    """Module and part of a key; None for a part that is none of LoRA's."""
    bare = _PREFIX.sub("", key, count=1)
    if bare.endswith(".weight.alpha"):  # diffusers' network alphas, which are called by the first factor
        name, part = _split(key.removesuffix(".alpha"))
        return name, ALPHA if part else None
    for pattern, part in _PARTS:
        if match := pattern.search(bare):
            name = bare[: match.start()].replace(".processor.", ".")
            old = "_lora" in match[0] and not match[0].startswith(".")  # an attention processor's: to_out is a list now
            return f"{name}.0" if old and name.endswith(".to_out") else name, part
    return bare, None


def _alpha(key: str, tensor: Tensor) -> float:
    if tensor.numel() != 1 or not math.isfinite(alpha := float(tensor)) or alpha == 0:
        raise ValueError(f"{key} is no alpha (one finite number that is not 0)")
    return alpha


def _modules(transformer: Any) -> dict[str, list[_Target]]:
    """Names by which files call the transformer's layers, with ``_`` for every dot → the layers."""
    import torch

    layers = {n: m for n, m in transformer.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)}
    own = {name: [_Target(name, 0, len(layer.weight), len(layer.weight))] for name, layer in layers.items()}
    theirs: dict[str, list[str]] = {}
    for name in layers:
        for pattern, new in _STABILITY:
            if match := re.fullmatch(pattern, name):
                theirs.setdefault(match.expand(new), []).append(name)
    for whole, parts in theirs.items():
        parts.sort(key=_place)
        total = sum(len(layers[part].weight) for part in parts)
        first = 0
        for part in parts:
            rows = len(layers[part].weight)
            own.setdefault(whole, []).append(_Target(part, first, rows, total, _swapped(transformer, part)))
            first += rows
    return {name.replace(".", "_"): targets for name, targets in own.items()}


def _place(name: str) -> int:
    """Where a projection's rows are in the joint one of queries, keys and values."""
    match = re.search(r"_([qkv])(_proj)?$", name)
    return "qkv".index(match[1]) if match else 0


def _swapped(transformer: Any, name: str) -> bool:
    """Whether a modulation gives the scale before the shift, where Stability's code gives the shift before it."""
    from diffusers.models.normalization import AdaLayerNormContinuous

    return isinstance(transformer.get_submodule(name.rpartition(".")[0]), AdaLayerNormContinuous)


def _config(path: Path, metadata: Mapping[str, str]) -> LoraConfig | None:
    """PEFT's configuration of an adapter, whole: a key that PEFT here does not know could change the strength."""
    from peft import LoraConfig

    if beside := config_beside(path):
        where, values = beside.name, records.read_json(beside, "copy or download it again")
    elif ADAPTER_KEY in metadata:
        where = f"its {ADAPTER_KEY}"
        try:
            values = json.loads(metadata[ADAPTER_KEY])
        except ValueError as error:
            raise ValueError(f"{where} is damaged ({error})") from error
        prefix = f"{TRANSFORMER}."
        if isinstance(values, dict) and any(key.startswith(prefix) for key in values):
            values = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    else:
        return None
    if not isinstance(values, dict):
        raise ValueError(f"{where} is no JSON object")
    if (kind := values.get("peft_type", "LORA")) != "LORA":
        raise ValueError(f"{where} says that it is {kind}, and only LoRA is read")
    known = {field.name for field in fields(LoraConfig)}
    if unknown := sorted(key for key in values.keys() - known if values[key]):
        raise ValueError(
            f"{where} has {some(unknown, 3)}, which this version of peft does not know; install a newer one"
        )
    values = {key: value for key, value in values.items() if key in known and key != "runtime_config"}
    for key in ("r", "lora_alpha"):
        number = values.get(key)
        if not isinstance(number, int | float) or isinstance(number, bool) or not math.isfinite(number) or number == 0:
            raise ValueError(f"{where} does not say {key}, a finite number that is not 0")
    return LoraConfig(**values)


def config_beside(path: Path) -> Path | None:
    """The file beside an adapter that says its strength: of PEFT's, and of diffusers' that does not say it itself."""
    from safetensors import safe_open

    beside = path.with_name(PEFT_CONFIG)
    if path.name == PEFT_WEIGHTS:
        return beside
    if path.name != LORA or not beside.is_file():
        return None
    with safe_open(path, "pt") as file:
        return None if ADAPTER_KEY in (file.metadata() or {}) else beside


def _own_config(file: LoraFile) -> LoraConfig:
    """A configuration for a file without one: each module with the rank of its weights and its own alpha."""
    from peft import LoraConfig

    ranks = {name: len(parts[A]) if A in parts else parts[B].shape[1] for name, parts in file.layers.items()}
    some = next(iter(ranks))
    return LoraConfig(
        r=ranks[some],
        lora_alpha=ranks[some],
        target_modules="|".join(map(re.escape, ranks)),
        rank_pattern={f"^{re.escape(name)}": rank for name, rank in ranks.items()},
        alpha_pattern={f"^{re.escape(name)}": file.alphas.get(name, rank) for name, rank in ranks.items()},
        use_dora=any(MAGNITUDE in parts for parts in file.layers.values()),
        lora_bias=any(BIAS in parts for parts in file.layers.values()),
    )


def _put_on(transformer: Any, file: LoraFile) -> None:
    """Make the layers that the configuration says, and fill each. ValueError where one stays as it was made."""
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    if alone := sorted(name for name, parts in file.layers.items() if not {A, B} <= parts.keys()):
        lacking = ", ".join(sorted({A, B} - file.layers[alone[0]].keys()))
        raise ValueError(f"it lacks {lacking} of {some(alone, 3)}")
    inject_adapter_in_model(file.config or _own_config(file), transformer, adapter_name=ADAPTER)
    slots = dict(_slots(transformer))
    tensors = {(name, part): tensor for name, parts in file.layers.items() for part, tensor in parts.items()}
    if missing := sorted(f"{name}.{part}" for name, part in slots.keys() - tensors.keys()):
        raise ValueError(f"it lacks {some(missing, 3)}")
    if extra := sorted(f"{name}.{part}" for name, part in tensors.keys() - slots.keys()):
        raise ValueError(f"its configuration makes no layer for {some(extra, 3)}")
    for (name, part), slot in slots.items():
        tensor = tensors[name, part]
        if tensor.shape != slot.shape:
            shapes = f"the shape {tuple(tensor.shape)}, and this transformer takes {tuple(slot.shape)}"
            raise ValueError(f"{name}.{part} has {shapes}")
        slot.data.copy_(tensor)
    for name, alpha in file.alphas.items():
        layer = transformer.get_submodule(name)
        assert isinstance(layer, LoraLayer)
        if layer.lora_alpha[ADAPTER] != alpha:
            raise ValueError(f"{name} has the alpha {alpha:g}, and {layer.lora_alpha[ADAPTER]:g} in its configuration")


def _slots(transformer: Any) -> Iterator[tuple[tuple[str, str], torch.nn.Parameter]]:
    """(module, part) → parameter, of every adapter's layer."""
    for key, value in transformer.named_parameters():
        if match := re.fullmatch(rf"(.+)\.(lora_\w+)\.{ADAPTER}\.(\w+)", key):
            yield (match[1], f"{match[2]}.{match[3]}"), value
