"""What an SD3-family pipeline is, as far as its cost goes: from a folder's configs, or from public ones kept here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import records, registry
from bench.backbone import hub
from bench.backbone.family import T5_TOKENS, check_family, check_sides, t5_tokens, weight_files
from bench.errors import BenchError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, SD3Transformer2DModel

    from bench.experiment.config import ExperimentConfig

_SD35: dict[str, Any] = dict(
    attention_head_dim=64,
    in_channels=16,
    joint_attention_dim=4096,
    out_channels=16,
    patch_size=2,
    pooled_projection_dim=2048,
    qk_norm="rms_norm",
    sample_size=128,
)
SD35_MEDIUM = _SD35 | dict(
    num_layers=24,
    num_attention_heads=24,
    caption_projection_dim=1536,
    pos_embed_max_size=384,
    dual_attention_layers=tuple(range(13)),
)
"""``transformer/config.json`` of stabilityai/stable-diffusion-3.5-medium, which is gated: as repositories that load its
weights repeat it, tenstorrent/tt-forge-models and painebenjamin/taproot. It makes 2,243,171,520 parameters."""
SD35_LARGE = _SD35 | dict(
    num_layers=38,
    num_attention_heads=38,
    caption_projection_dim=2432,
    pos_embed_max_size=192,
    dual_attention_layers=(),
)
"""The same of stabilityai/stable-diffusion-3.5-large, from tenstorrent/tt-forge-models."""
SD3_VAE: dict[str, Any] = dict(
    in_channels=3,
    out_channels=3,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    latent_channels=16,
    use_quant_conv=False,
    use_post_quant_conv=False,
    scaling_factor=1.5305,
    shift_factor=0.0609,
)
"""``vae/config.json`` of both."""
SD3_CLIP_TOKENS = 77
"""Tokens of CLIP, which come before T5's in SD3's text (``StableDiffusion3Pipeline.encode_prompt``)."""
SD3_TEXT_PARAMETERS = {"text_encoder": 123_650_304, "text_encoder_2": 694_659_840, "text_encoder_3": 4_762_310_656}
"""CLIP ViT-L/14 and OpenCLIP bigG/14 with projections, and the encoder of T5 v1.1 XXL."""

SD3_TEXT: dict[str, dict[str, Any]] = {
    "text_encoder": dict(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=SD3_CLIP_TOKENS,
        projection_dim=768,
        hidden_act="quick_gelu",
    ),
    "text_encoder_2": dict(
        vocab_size=49408,
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        max_position_embeddings=SD3_CLIP_TOKENS,
        projection_dim=1280,
        hidden_act="gelu",
    ),
    "text_encoder_3": dict(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    ),
}
"""Configurations of these encoders: openai/clip-vit-large-patch14, laion/CLIP-ViT-bigG-14-laion2B-39B-b160k and
google/t5-v1_1-xxl. A test holds them against ``SD3_TEXT_PARAMETERS``."""

SD3_TRANSFORMER = "SD3Transformer2DModel"
_SD3_DEFAULTS: dict[str, Any] = dict(sample_size=128, joint_attention_dim=4096, pooled_projection_dim=2048)
"""What diffusers fills in where a configuration leaves it out, of what is read here."""

KNOWN = {
    "stabilityai/stable-diffusion-3.5-medium": SD35_MEDIUM,
    "stabilityai/stable-diffusion-3.5-large": SD35_LARGE,
}
"""Hub ids that can be planned for before they are on this machine."""


@dataclass(frozen=True)
class Architecture:
    """Shapes of a pipeline.

    Attributes:
        folder: where it lies on this machine, with its weights; None: nowhere.
        why_absent: what to do about it then.
        transformer, vae: their configs.
        clip_tokens: tokens of a text before T5's.
        max_sequence_length: T5 tokens.
        resolution: side of a training picture in pixels.
        scale: ``embedded`` or ``full``, as in ``BackboneSpec``.
        text_parameters: of all text encoders.
        text_encoders: their configs.
    """

    name: str
    folder: Path | None
    why_absent: str
    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    clip_tokens: int
    max_sequence_length: int
    resolution: int
    scale: str
    text_parameters: int
    text_encoders: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: SD3_TEXT)

    @property
    def text_tokens(self) -> int:
        """Length of ``prompt_embeds``."""
        return self.clip_tokens + self.max_sequence_length

    def latent_shape(self, side: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of the latents of a square picture; default: at the training resolution."""
        factor = 2 ** (len(self.vae["block_out_channels"]) - 1)
        return self.vae["latent_channels"], (side or self.resolution) // factor, (side or self.resolution) // factor

    def empty_transformer(self) -> SD3Transformer2DModel:
        """The transformer without memory for its weights, on the meta device."""
        import torch
        from diffusers import SD3Transformer2DModel

        with torch.device("meta"):
            model: SD3Transformer2DModel = SD3Transformer2DModel.from_config(self.transformer)
        return model.eval()

    def empty_vae(self) -> AutoencoderKL:
        """The VAE on the meta device."""
        import torch
        from diffusers import AutoencoderKL

        with torch.device("meta"):
            model: AutoencoderKL = AutoencoderKL.from_config(self.vae)
        return model.eval()


def find(config: ExperimentConfig, default_resolution: int | None) -> Architecture:
    """The architecture of an experiment's backbone, of which an empty model can be made. Asks no network.

    Args:
        default_resolution: the suite's, where the experiment names none.

    Raises:
        BenchError: no such backbone, one that is neither on this machine nor known here, or one whose configuration
            makes no model.
    """
    try:
        found = _find(config, default_resolution)
        found.empty_transformer()
        found.empty_vae()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # of whatever is configured
        raise BenchError(
            f"the configuration of {config.backbone} makes no SD3 model: {type(error).__name__}: {error}"
        ) from error
    return found


def _find(config: ExperimentConfig, default_resolution: int | None) -> Architecture:
    source, scale, length = config.backbone, "full", 0
    if source in registry.table("backbones"):
        spec = registry.load("backbones", source)
        source, scale, length = spec.source, spec.scale, spec.max_sequence_length
        default_resolution = default_resolution or spec.resolution
    alone = Path(source).expanduser()
    folder: Path | None = None
    absent = ""
    if _configs_alone(alone):
        absent = f"{source} holds configurations and no weights"
    else:
        try:
            folder = hub.resolve(source, revision=config.revision, offline=True)
        except BenchError as error:
            if source not in KNOWN:
                raise
            absent = str(error)
    if folder is None and source not in KNOWN:
        transformer, vae, tokens, text = _of_configs(alone)
        encoders = {part: _config(alone, part) if _has(alone, part) else SD3_TEXT[part] for part in SD3_TEXT}
    elif folder is None:
        transformer, vae, tokens, text = KNOWN[source], SD3_VAE, SD3_CLIP_TOKENS, sum(SD3_TEXT_PARAMETERS.values())
        encoders = SD3_TEXT
    else:
        check_family(folder)
        transformer, vae = _config(folder, "transformer"), _config(folder, "vae")
        tokens = int(_config(folder, "text_encoder")["max_position_embeddings"])
        text = sum(_parameters(folder, part) for part in SD3_TEXT_PARAMETERS)
        encoders = {part: _config(folder, part) for part in SD3_TEXT}
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    side = config.resolution or default_resolution or int(transformer["sample_size"]) * factor
    check_sides(config.backbone, transformer, factor, [side])
    return Architecture(
        name=config.backbone,
        folder=folder,
        why_absent=absent,
        transformer=transformer,
        vae=vae,
        clip_tokens=tokens,
        max_sequence_length=config.max_sequence_length or length or (t5_tokens(folder) if folder else T5_TOKENS),
        resolution=side,
        scale=scale,
        text_parameters=text,
        text_encoders=encoders,
    )


def _configs_alone(folder: Path) -> bool:
    """Whether a folder says what a transformer is, and has no weights for it."""
    part = folder / "transformer"
    return (part / "config.json").is_file() and not any(part.glob("*.safetensors"))


def _of_configs(folder: Path) -> tuple[dict[str, Any], dict[str, Any], int, int]:
    """Transformer, VAE, CLIP's tokens and the text encoders' parameters of a folder without weights.

    What it does not say is SD3's.
    """
    transformer = _read(folder / "transformer" / "config.json")
    class_name = transformer.get("_class_name", SD3_TRANSFORMER)
    if class_name != SD3_TRANSFORMER:
        raise BenchError(
            f"{folder / 'transformer'} is a {class_name}, and no {SD3_TRANSFORMER}: the harness trains SD3 only"
        )
    vae, clip = folder / "vae" / "config.json", folder / "text_encoder" / "config.json"
    return (
        _SD3_DEFAULTS | transformer,
        SD3_VAE | (_read(vae) if vae.is_file() else {}),
        int(_read(clip).get("max_position_embeddings", SD3_CLIP_TOKENS)) if clip.is_file() else SD3_CLIP_TOKENS,
        sum(SD3_TEXT_PARAMETERS.values()),
    )


def _has(folder: Path, part: str) -> bool:
    return (folder / part / "config.json").is_file()


def _read(path: Path) -> dict[str, Any]:
    values = records.read_json(path, "copy or download it again")
    if not isinstance(values, dict):
        raise BenchError(f"{path} is no configuration of a model")
    return values


def _config(folder: Path, part: str) -> dict[str, Any]:
    return dict(json.loads((folder / part / "config.json").read_text(encoding="utf-8")))


def _parameters(folder: Path, part: str) -> int:
    """Parameters of a component, from the headers of its safetensors."""
    from math import prod

    total = 0
    for path in weight_files(folder / part):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total
