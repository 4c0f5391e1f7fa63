"""Loading parts in a precision: the same numbers as diffusers' plain loading, and one line where a device cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pipelines
import pytest
import torch

from bench.backbone import loader, loading
from bench.backbone.context import ContextPipeline
from bench.backbone.loading import load_text_pipeline, load_transformer, load_vae
from bench.errors import BenchError
from bench.machine.engine import check_dtype
from bench.suite import Prompt

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipelines.make_sd35(tmp_path_factory.mktemp("loading") / "pipeline", size="medium")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_weights_as_loaded_plainly(folder: Path, dtype: torch.dtype) -> None:
    """Parameters and buffers: mapping in the stored precision and casting after it loses nothing."""
    from diffusers import AutoencoderKL, SD3Transformer2DModel

    for mine, plain in (
        (load_transformer(folder, dtype, CPU), SD3Transformer2DModel.from_pretrained(folder, subfolder="transformer")),
        (load_vae(folder, dtype, CPU), AutoencoderKL.from_pretrained(folder, subfolder="vae")),
    ):
        expected = {name: value.to(dtype) for name, value in (*plain.named_parameters(), *plain.named_buffers())}
        found = dict((*mine.named_parameters(), *mine.named_buffers()))
        assert found.keys() == expected.keys()
        assert all(found[name].dtype == dtype and torch.equal(found[name], expected[name]) for name in expected)
        assert not mine.training


def test_weights_of_several_precisions_are_not_narrowed_on_the_way(folder: Path, tmp_path: Path) -> None:
    from diffusers import SD3Transformer2DModel

    model = load_transformer(folder, torch.float32, CPU).to(torch.bfloat16)
    with torch.no_grad():
        model.pos_embed.pos_embed = torch.full_like(model.pos_embed.pos_embed, 1 / 3, dtype=torch.float32)
    copy = Path(shutil.copytree(folder, tmp_path / "mixed"))
    shutil.rmtree(copy / "transformer")
    model.save_pretrained(copy / "transformer")
    loaded = load_transformer(copy, torch.float32, CPU)
    assert loaded.pos_embed.pos_embed[0, 0, 0].item() == pytest.approx(1 / 3, abs=1e-7)
    assert torch.equal(
        loaded.pos_embed.pos_embed,
        SD3Transformer2DModel.from_pretrained(copy, subfolder="transformer").pos_embed.pos_embed,
    )


def test_weights_train_and_the_vae_is_frozen(folder: Path) -> None:
    assert all(p.requires_grad for p in load_transformer(folder, torch.float32, CPU).parameters())
    assert not any(p.requires_grad for p in load_vae(folder, torch.float32, CPU).parameters())


def test_text_encoders_alone_in_bfloat16_on_the_cpu(folder: Path) -> None:
    texts, embeds = ["a red circle", ""], {}
    for dtype in (torch.float32, torch.bfloat16):
        pipeline = load_text_pipeline(folder, dtype, CPU)
        assert pipeline.transformer is None
        assert pipeline.vae is None
        assert {p.dtype for p in pipeline.text_encoder_3.parameters()} == {dtype}
        with torch.no_grad():
            embeds[dtype], _, pooled, _ = pipeline.encode_prompt(
                texts, texts, texts, do_classifier_free_guidance=False, max_sequence_length=8
            )
        assert pooled.shape == (2, 2 * pipelines.CLIP_WIDTH)
    assert embeds[torch.bfloat16].dtype == torch.bfloat16
    assert embeds[torch.float32].shape == (2, 12 + 8, pipelines.T5_WIDTH)
    difference = (embeds[torch.bfloat16].float() - embeds[torch.float32]).norm() / embeds[torch.float32].norm()
    assert 0 < difference < 0.02  # 8 bits of mantissa


def test_the_true_configuration_has_its_true_size() -> None:
    from diffusers import SD3Transformer2DModel

    config = {name: value for name, value in pipelines.SD35_MEDIUM["transformer"].items() if not name.startswith("_")}
    with torch.device("meta"):
        model = SD3Transformer2DModel(**config)
    assert sum(p.numel() for p in model.parameters()) == 2_243_171_520


def test_bfloat16_on_the_cpu_is_fine() -> None:
    check_dtype(torch.bfloat16, CPU)
    check_dtype(torch.float32, CPU)


def _cuda(monkeypatch: pytest.MonkeyPatch, *, there: bool, bf16: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    # a T4 computes in bfloat16 by emulation only
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation)


def test_bfloat16_on_a_gpu_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _cuda(monkeypatch, there=True, bf16=False)
    with pytest.raises(BenchError, match=r"^Tesla T4 does not compute in bfloat16; use --dtype float32$"):
        check_dtype(torch.bfloat16, torch.device("cuda"))
    check_dtype(torch.float32, torch.device("cuda"))
    _cuda(monkeypatch, there=True, bf16=True)
    check_dtype(torch.bfloat16, torch.device("cuda"))


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    _cuda(monkeypatch, there=False, bf16=False)
    with pytest.raises(BenchError, match="sees no CUDA device"):
        check_dtype(torch.float32, torch.device("cuda"))
    if not torch.xpu.is_available():
        with pytest.raises(BenchError, match="cannot use the device xpu"):
            check_dtype(torch.float32, torch.device("xpu"))


def test_another_device_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    made = torch.ones

    def ones(*size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        if dtype == torch.bfloat16:
            raise TypeError("BFloat16 is not supported on MPS")
        return made(*size, dtype=dtype)

    monkeypatch.setattr(loading.torch, "ones", ones)
    with pytest.raises(BenchError, match=r"^mps does not compute in bfloat16; use --dtype float32$"):
        check_dtype(torch.bfloat16, torch.device("mps"))


# -- all of the weights, or a line -------------------------------------------------------------------------------------


def _edited(folder: Path, part: str, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Rewrite a part's weights as one file."""
    from safetensors.torch import load_file, save_file

    files = sorted((folder / part).glob("*.safetensors"))
    weights = {name: value for file in files for name, value in load_file(file).items()}
    edit(weights)
    for file in (folder / part).glob("*.safetensors*"):
        file.unlink()
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    save_file(weights, folder / part / f"{stem}.safetensors", {"format": "pt"})


def _load(folder: Path, part: str) -> object:
    if part.startswith("text_encoder"):
        return load_text_pipeline(folder, torch.float32, CPU)
    return (load_transformer if part == "transformer" else load_vae)(folder, torch.float32, CPU)


PARTS = {
    "transformer": "transformer_blocks.0.attn.to_q.weight",
    "vae": "decoder.conv_in.weight",
    "text_encoder": "text_model.final_layer_norm.weight",
    "text_encoder_2": "text_projection.weight",
    "text_encoder_3": "encoder.final_layer_norm.weight",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_lacks_a_tensor_is_refused(folder: Path, tmp_path: Path, part: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    _edited(copy, part, lambda weights: weights.pop(PARTS[part]))
    with pytest.raises(BenchError, match=f"copy/{part} lack {PARTS[part]}; copy or download them again"):
        _load(copy, part)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_with_a_tensor_too_many_is_refused(folder: Path, tmp_path: Path, part: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    _edited(copy, part, lambda weights: weights.update({"encoder.of_another.weight": torch.ones(2)}))
    with pytest.raises(BenchError, match=f"copy/{part} hold, and the model does not have, encoder.of_another.weight;"):
        _load(copy, part)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_with_a_tensor_of_another_shape_is_refused(folder: Path, tmp_path: Path, part: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    _edited(copy, part, lambda weights: weights.update({PARTS[part]: torch.ones(3, dtype=torch.bfloat16)}))
    with pytest.raises(BenchError, match=f"copy/{part} .*{PARTS[part]}") as caught:
        _load(copy, part)
    assert "\n" not in str(caught.value)


def test_many_names_are_shortened(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    lost = []

    def half(weights: dict[str, torch.Tensor]) -> None:
        for name in sorted(weights)[::2]:
            lost.append(name)
            del weights[name]

    _edited(copy, "text_encoder", half)
    with pytest.raises(BenchError, match=f"lack {lost[0]}, {lost[1]}, {lost[2]}, and {len(lost) - 3} more;"):
        load_text_pipeline(copy, torch.float32, CPU)


@pytest.mark.parametrize("kept", ["shared.weight", "encoder.embed_tokens.weight"])
def test_t5s_one_table_has_two_names_and_old_clips_have_positions(folder: Path, tmp_path: Path, kept: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))

    def renamed(weights: dict[str, torch.Tensor]) -> None:
        found = [weights.pop(name) for name in ("shared.weight", "encoder.embed_tokens.weight") if name in weights]
        weights[kept] = found[0]

    _edited(copy, "text_encoder_3", renamed)
    positions = {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    _edited(copy, "text_encoder", lambda weights: weights.update(positions))
    for one, two in zip(
        load_text_pipeline(copy, torch.float32, CPU).text_encoder_3.state_dict().items(),
        load_text_pipeline(folder, torch.float32, CPU).text_encoder_3.state_dict().items(),
        strict=True,
    ):
        assert one[0] == two[0] and torch.equal(one[1], two[1])


BROKEN = {
    "scheduler/scheduler_config.json": '{"num_train_timesteps": "many"}',
    "tokenizer/vocab.json": "[1, 2]",
    "tokenizer_2/tokenizer_config.json": "[]",
    "tokenizer_3/tokenizer.json": '{"model": []}',
    "text_encoder/config.json": '{"hidden_size": "wide"}',
    "text_encoder_3/config.json": '{"d_model": []}',
    "transformer/config.json": '{"num_layers": "two"}',
    "vae/config.json": '{"block_out_channels": 7}',
}


@pytest.mark.parametrize("file", BROKEN)
def test_a_broken_part_of_a_pipeline_is_named(folder: Path, tmp_path: Path, file: str) -> None:
    """From opening the backbone to using each of its parts."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    content = json.loads((copy / file).read_text())
    broken = json.loads(BROKEN[file])
    both = isinstance(content, dict) and isinstance(broken, dict)
    (copy / file).write_text(json.dumps({**content, **broken} if both else broken))
    with pytest.raises(BenchError, match=rf"copy.*\b{file.split('/')[0]}\b") as caught:
        backbone = loader.find(str(copy))
        backbone.scheduler()
        backbone.transformer()
        backbone.encode_prompts(["a"])
        with backbone.vae_loaded():
            pass
    assert "\n" not in str(caught.value)
    assert torch.get_default_dtype() == torch.float32  # what comes after computes as before


@pytest.mark.parametrize("title", ["FLUX.1", "SDXL"])
def test_a_context_row_is_loaded_whole_too(tmp_path: Path, title: str) -> None:
    copy = pipelines.MAKERS[title](tmp_path / "copy")
    _edited(copy, "text_encoder", lambda weights: weights.pop(next(n for n in weights if "final_layer_norm.w" in n)))
    pipeline = ContextPipeline(str(copy), device=CPU, dtype=torch.float32, steps=1)
    with pytest.raises(BenchError, match=r"copy/text_encoder lack .*final_layer_norm.weight"):
        pipeline.draw([Prompt("0", "a red circle")], [0])
