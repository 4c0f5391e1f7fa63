"""The pipeline families that the harness reads, and whether a folder's parts belong together: from its configs alone.

Nothing here imports torch or opens a weight beyond its header, so a wrong folder is found in a moment, not after
30 GB were read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError

Configs = Mapping[str, Mapping[str, Any]]
"""Component → its ``config.json``."""
Agreement = tuple[str, object, str, object]
"""Two numbers that must be equal, each after the name that a user finds it under."""


T5_TOKENS = 256
"""Of a prompt, in the paper's evaluations (``docs/protocol.md``)."""


def check_sides(name: str, transformer: Mapping[str, Any], pixels_per_latent: int, sides: Iterable[int]) -> None:
    """BenchError unless the SD3 transformer takes pictures with these sides, in pixels.

    A side is a whole number of patches of latents, and no more patches than the table of positions has rows
    (``PatchEmbed.cropped_pos_embed`` of diffusers).

    Args:
        name: of the backbone, for people.
        transformer: its ``config.json``.
    """
    step = int(transformer.get("patch_size") or 2) * pixels_per_latent
    most = int(transformer.get("pos_embed_max_size") or 96) * step
    for side in sorted(set(sides)):
        if side % step or not step <= side <= most:
            below = min(max(side // step, 1) * step, most)
            near = f"{below} or {below + step}" if below < side and below + step <= most else f"{below}"
            raise BenchError(
                f"{name} takes pictures with sides of a multiple of {step} px up to {most} px, and not of {side} px; "
                f"the nearest for --resolution: {near}"
            )


@dataclass(frozen=True)
class Family:
    """What a pipeline of one class is made of.

    Attributes:
        pipeline: ``_class_name`` of ``model_index.json``.
        title: what people call it.
        parts: component with weights → its class. The denoiser comes first.
        tokenizers: tokenizer → the text encoder that reads its ids.
        agreements: the sizes that must match for the parts to fit each other.
    """

    pipeline: str
    title: str
    parts: Mapping[str, str]
    tokenizers: Mapping[str, str]
    agreements: Callable[[Configs], Iterator[Agreement]]

    @property
    def folders(self) -> tuple[str, ...]:
        """Every component's folder."""
        return ("scheduler", *self.parts, *self.tokenizers)


def _sd3(configs: Configs) -> Iterator[Agreement]:
    """As ``StableDiffusion3Pipeline.encode_prompt`` and the MMDiT's ``forward`` put the parts together."""
    model, vae = configs["transformer"], configs["vae"]
    one, two, t5 = configs["text_encoder"], configs["text_encoder_2"], configs["text_encoder_3"]
    yield "transformer in_channels", model.get("in_channels"), "vae latent_channels", vae.get("latent_channels")
    yield "transformer out_channels", model.get("out_channels"), "vae latent_channels", vae.get("latent_channels")
    yield (
        "transformer joint_attention_dim",
        model.get("joint_attention_dim"),
        "text_encoder_3 d_model",
        t5.get("d_model"),
    )
    pooled = _sum(one.get("projection_dim"), two.get("projection_dim"))
    yield (
        "transformer pooled_projection_dim", model.get("pooled_projection_dim"),
        "the sum of text_encoder's and text_encoder_2's projection_dim", pooled,
    )  # fmt: skip


def _flux(configs: Configs) -> Iterator[Agreement]:
    """As ``FluxPipeline`` does: 2 x 2 latents packed into one token, CLIP's pooled output, T5's states."""
    model, vae = configs["transformer"], configs["vae"]
    packed = _sum(*[vae.get("latent_channels")] * 4)
    yield "transformer in_channels", model.get("in_channels"), "4 x vae latent_channels", packed
    t5, clip = configs["text_encoder_2"], configs["text_encoder"]
    yield (
        "transformer joint_attention_dim",
        model.get("joint_attention_dim"),
        "text_encoder_2 d_model",
        t5.get("d_model"),
    )
    yield (
        "transformer pooled_projection_dim", model.get("pooled_projection_dim"),
        "text_encoder hidden_size", clip.get("hidden_size"),
    )  # fmt: skip


def _sdxl(configs: Configs) -> Iterator[Agreement]:
    """As ``StableDiffusionXLPipeline`` does: both CLIPs' states side by side, and six sizes beside the pooled text."""
    model, vae, one, two = (configs[part] for part in ("unet", "vae", "text_encoder", "text_encoder_2"))
    yield "unet in_channels", model.get("in_channels"), "vae latent_channels", vae.get("latent_channels")
    width = _sum(one.get("hidden_size"), two.get("hidden_size"))
    yield (
        "unet cross_attention_dim", model.get("cross_attention_dim"),
        "the sum of text_encoder's and text_encoder_2's hidden_size", width,
    )  # fmt: skip
    added = _sum(*[model.get("addition_time_embed_dim")] * 6, two.get("projection_dim"))
    yield (
        "unet projection_class_embeddings_input_dim", model.get("projection_class_embeddings_input_dim"),
        "6 x addition_time_embed_dim + text_encoder_2 projection_dim", added,
    )  # fmt: skip


def _sum(*numbers: int | None) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


_CLIP = "CLIPTextModelWithProjection"
SD3 = Family(
    "StableDiffusion3Pipeline",
    "SD3",
    {
        "transformer": "SD3Transformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": _CLIP,
        "text_encoder_2": _CLIP,
        "text_encoder_3": "T5EncoderModel",
    },
    {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2", "tokenizer_3": "text_encoder_3"},
    _sd3,
)
FLUX = Family(
    "FluxPipeline",
    "FLUX.1",
    {
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
    },
    {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"},
    _flux,
)
SDXL = Family(
    "StableDiffusionXLPipeline",
    "SDXL",
    {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": _CLIP,
    },
    {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"},
    _sdxl,
)
TRAINED = (SD3,)
"""Families that the harness post-trains."""
DRAWN = (SD3, FLUX, SDXL)
"""Families that it can evaluate."""

STEMS = ("diffusion_pytorch_model", "model")
"""File names of weights, by diffusers and by transformers; a variant (``model.fp16.safetensors``) is another file."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")


def check_family(folder: Path, families: Sequence[Family] = TRAINED) -> Family:
    """The family of a pipeline folder whose parts are all there and fit each other.

    Checked are: the pipeline's and its parts' classes; that each part has whole safetensors; that each tokenizer's
    vocabulary is its encoder's; that the widths on both sides of every seam are equal.

    Raises:
        BenchError: one line that names the file or the two numbers at fault.
    """
    index = read_json(folder / "model_index.json", f"{folder} is no diffusers pipeline folder")
    name = index.get("_class_name")
    family = next((f for f in families if f.pipeline == name), None)
    if family is None:
        wanted = ", ".join(f"{f.title} ({f.pipeline})" for f in families)
        use = "trains" if tuple(families) == TRAINED else "evaluates"
        what = f"holds a {name}" if name else "names no pipeline class (_class_name) in model_index.json"
        raise BenchError(f"{folder} {what}; the harness {use} {wanted} only")
    configs = {part: _part(folder, index, part, wanted) for part, wanted in family.parts.items()}
    read_json(folder / "scheduler" / "scheduler_config.json", f"{folder} is incomplete")
    for tokenizer, encoder in family.tokenizers.items():
        with _typed(folder / tokenizer):
            _check_tokenizer(folder, tokenizer, encoder, configs[encoder])
    with _typed(folder):
        agreements = list(family.agreements(configs))
    for left, a, right, b in agreements:
        if a is None or a != b:
            raise BenchError(f"{folder}: its parts do not belong together: {left} is {a}, {right} is {b}")
    return family


@contextmanager
def _typed(what: Path) -> Iterator[None]:
    """Inside, values of configs are used; one of another type than it should have is one line that names the part."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise BenchError(f"{what} is damaged ({error}); copy or download it again") from error


def read_json(path: Path, otherwise: str) -> dict[str, Any]:
    """A JSON object. Where the file is not there, the error begins with ``otherwise``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        name = path.name if path.name == "model_index.json" else f"{path.parent.name}/{path.name}"
        raise BenchError(f"{otherwise}: {name} is not there") from error
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path} is damaged ({error}); copy or download it again") from error
    if not isinstance(content, dict):
        raise BenchError(f"{path} is damaged (no JSON object); copy or download it again")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of one component's folder: one file, or the shards that its index lists.

    Raises:
        BenchError: none there, only pickles there, a shard missing, or a file shorter than its header says.
    """
    for stem in STEMS:
        index, single = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
        if index.exists():
            with _typed(index):
                shards = sorted(set(read_json(index, "").get("weight_map", {}).values()))
                files = [folder / Path(shard).name for shard in shards]
        elif single.exists():
            files = [single]
        else:
            continue
        for file in files:
            read_header(file)
        return files
    pickles = sorted(p.name for p in folder.glob("*") if p.suffix in PICKLES)
    if pickles:
        raise BenchError(
            f"{folder} has weights only as a pickle ({pickles[0]}), which can run any code when it is opened; "
            "save them as safetensors (save_pretrained of diffusers does)"
        )
    raise BenchError(f"{folder.parent} is incomplete: {folder.name}/ has no safetensors, the only weights read")


def _part(folder: Path, index: Mapping[str, Any], part: str, expected: str) -> dict[str, Any]:
    entry = index.get(part)
    class_name = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    if class_name is None:
        raise BenchError(f"{folder}/model_index.json names no {part}; a whole {index['_class_name']} has one")
    if class_name != expected:
        raise BenchError(f"{folder}: {part} is a {class_name}, not a {expected}")
    config = read_json(folder / part / "config.json", f"{folder} is incomplete")
    weight_files(folder / part)
    return config


def read_header(file: Path) -> dict[str, dict[str, Any]]:
    """Name → ``dtype``, ``shape`` and ``data_offsets`` of a safetensors file's tensors.

    Such a file is a length (8 bytes, little endian), a JSON header of that length, and the data that it describes;
    see https://huggingface.co/docs/safetensors. Raises BenchError where the file is not as long as the header says.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            header = json.loads(content.read(length)) if length < size else {}
        header.pop("__metadata__", None)
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
    except FileNotFoundError as error:
        raise BenchError(f"{file.parents[1]} is incomplete: {file.parent.name}/{file.name} is not there") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BenchError(f"{file} is damaged; copy or download it again") from error
    if size != 8 + length + end:
        raise BenchError(f"{file} is cut short ({size} bytes); copy or download it again")
    return dict(header)


def t5_tokens(folder: Path) -> int:
    """T5 tokens of a prompt: 256, the paper's at evaluation, or fewer where the pipeline's tokenizer takes no more.

    SD3.5's takes 512, an exported tiny-sd3's the 12 that it was trained with.
    """
    with _typed(folder / "tokenizer_3"):
        stated = _optional(folder / "tokenizer_3" / "tokenizer_config.json").get("model_max_length")
        return min(T5_TOKENS, int(stated or T5_TOKENS))


def _check_tokenizer(folder: Path, tokenizer: str, encoder: str, config: Mapping[str, Any]) -> None:
    if not any((folder / tokenizer / name).exists() for name in VOCABULARIES):
        raise BenchError(f"{folder} is incomplete: {tokenizer}/ has none of {', '.join(VOCABULARIES)}")
    size, rows = vocabulary(folder / tokenizer), config.get("vocab_size")
    # an embedding may be padded to a multiple of 128, as T5's 32,128 rows for 32,100 pieces are
    if size is not None and (rows is None or not size <= rows <= -(-size // 128) * 128):
        raise BenchError(
            f"{folder}: {tokenizer} has {size} tokens but {encoder} vocab_size is {rows}; they are not a pair"
        )
    settings = _optional(folder / tokenizer / "tokenizer_config.json")
    length, positions = settings.get("model_max_length"), config.get("max_position_embeddings")
    if length is not None and positions is not None and length > positions:
        raise BenchError(
            f"{folder}: {tokenizer} model_max_length is {length} but {encoder} has {positions} positions; "
            "they are not a pair"
        )


def vocabulary(folder: Path) -> int | None:
    """Number of ids that a tokenizer gives out: its highest id + 1.

    None where only SentencePiece's binary holds it and no added token tells.
    """
    ids: list[int] = []
    whole = _optional(folder / "tokenizer.json")
    table = whole.get("model", {}).get("vocab", {})
    ids += table.values() if isinstance(table, dict) else range(len(table))  # BPE maps to ids, Unigram lists in order
    ids += [token["id"] for token in whole.get("added_tokens", [])]
    ids += _optional(folder / "vocab.json").values()
    ids += _optional(folder / "added_tokens.json").values()
    ids += [int(i) for i in _optional(folder / "tokenizer_config.json").get("added_tokens_decoder", {})]
    return max(ids) + 1 if ids else None


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path, "") if path.exists() else {}
