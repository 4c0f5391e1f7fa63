"""Whether a folder is a pipeline of a family that is read, and its parts fit: one line for everything that is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pipelines
import pytest
from safetensors.numpy import save_file

from bench.backbone import loader
from bench.backbone.family import DRAWN, check_family, read_header, vocabulary, weight_files
from bench.errors import BenchError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny pipeline of each family."""
    root = tmp_path_factory.mktemp("families")
    return {title: make(root / title) for title, make in pipelines.MAKERS.items()}


@pytest.fixture
def sd3(made: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made["SD3"], tmp_path / "pipeline"))


def _line(folder: Path, **options: Any) -> str:
    with pytest.raises(BenchError) as raised:
        check_family(folder, **options)
    line = str(raised.value)
    assert "\n" not in line
    return line


def _edit(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (content | values).items() if v is not ...}))


@pytest.mark.parametrize("title", list(pipelines.MAKERS))
def test_real_layouts_pass(made: dict[str, Path], title: str) -> None:
    assert check_family(made[title], DRAWN).title == title


def test_the_medium_shape_and_the_embedded_pipelines_pass(tmp_path: Path, tiny_pipeline: Path) -> None:
    assert check_family(pipelines.make_sd35(tmp_path / "medium", size="medium")).title == "SD3"
    assert check_family(Path(loader.TINY_SD3.source)).title == "SD3"
    assert check_family(tiny_pipeline).title == "SD3"


def test_only_sd3_is_trained(made: dict[str, Path]) -> None:
    line = _line(made["FLUX.1"])
    assert "holds a FluxPipeline; the harness trains SD3 (StableDiffusion3Pipeline) only" in line


def test_a_family_that_nothing_reads(sd3: Path) -> None:
    _edit(sd3 / "model_index.json", _class_name="PixArtSigmaPipeline")
    assert "holds a PixArtSigmaPipeline; the harness evaluates SD3" in _line(sd3, families=DRAWN)


def test_no_pipeline_folder(tmp_path: Path) -> None:
    assert "is no diffusers pipeline folder: model_index.json is not there" in _line(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    assert "names no pipeline class (_class_name) in model_index.json; the harness trains SD3" in _line(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    assert "is damaged" in _line(tmp_path)
    (tmp_path / "model_index.json").write_text("[]")
    assert "is damaged" in _line(tmp_path)


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no T5 in the index": (
        lambda f: _edit(f / "model_index.json", text_encoder_3=[None, None]),
        "names no text_encoder_3",
    ),
    "another class": (
        lambda f: _edit(f / "model_index.json", transformer=["diffusers", "FluxTransformer2DModel"]),
        "transformer is a FluxTransformer2DModel, not a SD3Transformer2DModel",
    ),
    "no folder": (lambda f: shutil.rmtree(f / "vae"), "incomplete: vae/config.json is not there"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "scheduler/scheduler_config.json is not there"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer_2"), "tokenizer_2/ has none of tokenizer.json"),
    "no weights": (
        lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").unlink(),
        "vae/ has no safetensors",
    ),
    "pickles": (
        lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").rename(f / "vae" / "diffusion_pytorch_model.bin"),
        "only as a pickle (diffusion_pytorch_model.bin)",
    ),
    "a variant alone": (
        lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").rename(
            f / "vae" / "diffusion_pytorch_model.fp16.safetensors"
        ),
        "vae/ has no safetensors",
    ),
    "a shard": (
        lambda f: (f / "transformer" / "diffusion_pytorch_model-00002-of-00004.safetensors").unlink(),
        "transformer/diffusion_pytorch_model-00002-of-00004.safetensors is not there",
    ),
    "cut short": (
        lambda f: _truncate(f / "text_encoder" / "model.safetensors", 100),
        "is cut short",
    ),
    "cut to nothing": (lambda f: _truncate(f / "text_encoder" / "model.safetensors"), "is cut short"),
    "no safetensors at all": (
        lambda f: (f / "text_encoder" / "model.safetensors").write_bytes(b"\x08" + 7 * b"\0" + b"rubbish."),
        "is damaged",
    ),
    "a config": (lambda f: (f / "vae" / "config.json").write_text("{"), "vae/config.json is damaged"),
    "the VAE": (
        lambda f: _edit(f / "vae" / "config.json", latent_channels=4),
        "transformer in_channels is 16, vae latent_channels is 4",
    ),
    "the T5": (
        lambda f: _edit(f / "text_encoder_3" / "config.json", d_model=64),
        "transformer joint_attention_dim is 32, text_encoder_3 d_model is 64",
    ),
    "a CLIP": (
        lambda f: _edit(f / "text_encoder_2" / "config.json", projection_dim=8),
        "transformer pooled_projection_dim is 32, the sum of text_encoder's and text_encoder_2's projection_dim is 24",
    ),
    "a number": (
        lambda f: _edit(f / "transformer" / "config.json", joint_attention_dim=...),
        "transformer joint_attention_dim is None",
    ),
    "another CLIP's tokenizer": (
        lambda f: _edit(f / "tokenizer" / "vocab.json", word=49407),
        "tokenizer has 49408 tokens but text_encoder vocab_size is",
    ),
    "a smaller vocabulary": (
        lambda f: _edit(f / "text_encoder_3" / "config.json", vocab_size=32128),
        "text_encoder_3 vocab_size is 32128; they are not a pair",
    ),
    "too long": (
        lambda f: _edit(f / "tokenizer" / "tokenizer_config.json", model_max_length=77),
        "tokenizer model_max_length is 77 but text_encoder has 12 positions",
    ),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_one_line_for(sd3: Path, case: str) -> None:
    damage, line = BROKEN[case]
    damage(sd3)
    assert line in _line(sd3)


@pytest.mark.parametrize(
    ("title", "part", "number", "line"),
    [
        ("FLUX.1", "transformer", "in_channels", "4 x vae latent_channels is 64"),
        ("FLUX.1", "transformer", "joint_attention_dim", "text_encoder_2 d_model is 32"),
        ("FLUX.1", "transformer", "pooled_projection_dim", "text_encoder hidden_size is 16"),
        ("SDXL", "unet", "in_channels", "vae latent_channels is 4"),
        ("SDXL", "unet", "cross_attention_dim", "hidden_size is 32"),
        ("SDXL", "unet", "projection_class_embeddings_input_dim", "text_encoder_2 projection_dim is 64"),
    ],
)
def test_the_other_families_parts_must_fit_too(
    made: dict[str, Path], tmp_path: Path, title: str, part: str, number: str, line: str
) -> None:
    folder = Path(shutil.copytree(made[title], tmp_path / "pipeline"))
    _edit(folder / part / "config.json", **{number: 7})
    assert f"{part} {number} is 7, " in _line(folder, families=DRAWN)
    assert line in _line(folder, families=DRAWN)


def _write_sd35_medium(folder: Path) -> Path:
    """Its layout, with empty weights: CLIP's vocabulary in ``vocab.json``, T5's 32,000 pieces and 100 extra ids."""
    index: dict[str, Any] = {"_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.31.0.dev0"}
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    kinds = ("SD3Transformer2DModel", "AutoencoderKL", *["CLIPTextModelWithProjection"] * 2, "T5EncoderModel")
    for (part, config), kind in zip(pipelines.SD35_MEDIUM.items(), kinds, strict=True):
        index[part] = ["transformers" if part.startswith("text") else "diffusers", kind]
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
        stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
        save_file({}, folder / part / f"{stem}.safetensors")
    for number in ("", "_2", "_3"):
        clip = number != "_3"
        (folder / f"tokenizer{number}").mkdir()
        index[f"tokenizer{number}"] = ["transformers", "CLIPTokenizer" if clip else "T5TokenizerFast"]
        settings = {"model_max_length": 77 if clip else 512}
        (folder / f"tokenizer{number}" / "tokenizer_config.json").write_text(json.dumps(settings))
    for number in ("", "_2"):
        (folder / f"tokenizer{number}" / "vocab.json").write_text(json.dumps({f"t{i}": i for i in range(49408)}))
    pieces = {"model": {"type": "Unigram", "vocab": [[f"p{i}", 0.0] for i in range(32000)]}}
    extra = {"added_tokens": [{"id": 32000 + i, "content": f"<extra_id_{99 - i}>"} for i in range(100)]}
    (folder / "tokenizer_3" / "tokenizer.json").write_text(json.dumps(pieces | extra))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"shift": 3.0}))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_the_real_numbers_of_sd35_medium_pass(tmp_path: Path) -> None:
    folder = _write_sd35_medium(tmp_path / "sd35m")
    assert check_family(folder).title == "SD3"
    assert vocabulary(folder / "tokenizer_3") == 32100  # padded to 32,128 rows
    shutil.copytree(folder / "tokenizer_3", folder / "tokenizer_2", dirs_exist_ok=True)
    (folder / "tokenizer_2" / "vocab.json").unlink()
    assert "tokenizer_2 has 32100 tokens but text_encoder_2 vocab_size is 49408; they are not a pair" in _line(folder)


def test_a_t5_vocabulary_in_a_binary_is_counted_by_its_added_tokens(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(b"\x0a\x00")
    assert vocabulary(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"0": {}, "32099": {}}}))
    assert vocabulary(tmp_path) == 32100


def test_shards_named_in_an_index_stay_in_the_folder(sd3: Path) -> None:
    index = sd3 / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    _edit(index, weight_map={"x": "../../../etc/passwd"})
    with pytest.raises(BenchError, match="transformer/passwd is not there"):
        weight_files(sd3 / "transformer")


def test_a_header_tells_every_tensor(sd3: Path) -> None:
    tensors = [name for file in weight_files(sd3 / "transformer") for name in read_header(file)]
    index = json.loads((sd3 / "transformer" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert sorted(tensors) == sorted(index["weight_map"])


def _truncate(path: Path, keep: int = 0) -> None:
    path.write_bytes(path.read_bytes()[:-keep] if keep else b"")


@pytest.mark.parametrize("offsets", ["[]", '[0, "four"]', "4", '{"a": 1}', "[" * 3000 + "]" * 3000])
def test_a_header_with_other_offsets_is_damaged(tmp_path: Path, offsets: str) -> None:
    header = f'{{"x": {{"dtype": "F32", "shape": [1], "data_offsets": {offsets}}}}}'.encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(BenchError, match=r"model\.safetensors is damaged; copy or download it again"):
        read_header(file)
