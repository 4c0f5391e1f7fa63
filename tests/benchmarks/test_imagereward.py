"""ImageReward on a BLIP of random weights in the official checkpoint's layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_blip
import torch
from drawn import check_gradient, check_on_a_gpu, drawn, metric, one_line, words
from torch import Tensor
from torch.nn import functional as F

from bench.rng import numpy_generator
from bench.suite import Prompt
from benchmarks import inference
from benchmarks.blip_reward import BlipReward

VALUE = 1.036547
"""Mean score of ``drawn`` by the tiny model."""
TOKENS, HEADS = 35, 2


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``ImageReward.pt`` and ``vocab.txt``."""
    folder = tmp_path_factory.mktemp("imagereward")
    count = tiny_blip.make_vocabulary(folder / "vocab.txt", words())
    tiny_blip.make_tiny_image_reward(folder / "ImageReward.pt", count)
    return folder


@pytest.fixture(autouse=True)
def stand_ins(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ASSET_IMAGEREWARD_V1", str(models))
    monkeypatch.setenv("BENCH_ASSET_BERT_VOCABULARY", str(models / "vocab.txt"))


def model() -> BlipReward:
    return inference.loaded(BlipReward, *metric("imagereward").assets)


def test_the_value_on_committed_inputs_is_pinned() -> None:
    assert metric("imagereward").version == 1
    assert float(np.mean(metric("imagereward").score(*drawn()))) == pytest.approx(VALUE, abs=2e-5)


def test_it_is_the_network_written_out(models: Path) -> None:
    """Every layer by hand, in float64, from the checkpoint's own names."""
    pictures, prompts = drawn()
    weights = {
        name: weight.double()
        for name, weight in torch.load(models / "ImageReward.pt", weights_only=True).items()
        if weight.is_floating_point()
    }
    expected = []
    for picture, prompt in zip(pictures[:6], prompts[:6], strict=True):
        seen = picture_tower(weights, prepared_by_torchvision(picture).double())
        read = text_tower(weights, seen, token_ids(models / "vocab.txt", prompt.text))
        for number in (0, 2, 4, 6, 7):
            read = linear(weights, f"mlp.layers.{number}", read)
        expected.append((float(read) - 0.16717362830052426) / 1.0333394966054072)
    np.testing.assert_allclose(metric("imagereward").score(pictures[:6], prompts[:6]), expected, rtol=1e-5)


def linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights: dict[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of rows (tokens, width) in heads."""
    q, k, v = (rows.unflatten(1, (HEADS, -1)).transpose(0, 1) for rows in (query, key, value))
    shares = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
    return (shares @ v).transpose(0, 1).flatten(1)


def picture_tower(weights: dict[str, Tensor], picture: Tensor) -> Tensor:
    """timm's ViT: normalised before each part."""
    eye = "blip.visual_encoder."
    patches = F.conv2d(
        picture, weights[f"{eye}patch_embed.proj.weight"], weights[f"{eye}patch_embed.proj.bias"], tiny_blip.PATCH
    )
    x = torch.cat([weights[f"{eye}cls_token"][0], patches[0].flatten(1).T]) + weights[f"{eye}pos_embed"][0]
    for layer in range(tiny_blip.LAYERS):
        block = f"{eye}blocks.{layer}."
        query, key, value = linear(weights, f"{block}attn.qkv", norm(weights, f"{block}norm1", x, 1e-6)).chunk(3, 1)
        x = x + linear(weights, f"{block}attn.proj", attend(query, key, value))
        inner = F.gelu(linear(weights, f"{block}mlp.fc1", norm(weights, f"{block}norm2", x, 1e-6)))
        x = x + linear(weights, f"{block}mlp.fc2", inner)
    return norm(weights, f"{eye}norm", x, 1e-6)


def text_tower(weights: dict[str, Tensor], seen: Tensor, ids: list[int]) -> Tensor:
    """BERT, normalised after each part, with attention to the picture; its first token. Padding is left away."""
    reader = "blip.text_encoder."
    x = weights[f"{reader}embeddings.word_embeddings.weight"][ids]
    x = x + weights[f"{reader}embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(weights, f"{reader}embeddings.LayerNorm", x, 1e-12)
    for layer in range(tiny_blip.LAYERS):
        block = f"{reader}encoder.layer.{layer}."
        for part, other in (("attention", None), ("crossattention", seen)):
            source = x if other is None else other
            rows = [linear(weights, f"{block}{part}.self.query", x)]
            rows += [linear(weights, f"{block}{part}.self.{name}", source) for name in ("key", "value")]
            x = x + linear(weights, f"{block}{part}.output.dense", attend(*rows))
            x = norm(weights, f"{block}{part}.output.LayerNorm", x, 1e-12)
        inner = F.gelu(linear(weights, f"{block}intermediate.dense", x))
        x = norm(weights, f"{block}output.LayerNorm", x + linear(weights, f"{block}output.dense", inner), 1e-12)
    return x[0]


def token_ids(vocabulary: Path, text: str) -> list[int]:
    """Of a prompt whose words are all in the vocabulary."""
    lines = vocabulary.read_text(encoding="utf-8").split("\n")
    spaced = "".join(f" {letter} " if letter in "\",.'" else letter for letter in text.lower())
    return [lines.index(token) for token in ("[CLS]", *spaced.split(), "[SEP]")]


def prepared_by_torchvision(picture: np.ndarray) -> Tensor:
    from PIL import Image
    from torchvision import transforms as T

    steps = [T.Resize(tiny_blip.SIDE, T.InterpolationMode.BICUBIC), T.CenterCrop(tiny_blip.SIDE), T.ToTensor()]
    steps.append(T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
    return T.Compose(steps)(Image.fromarray(picture))[None]


@pytest.mark.parametrize("shape", [(64, 64), (48, 32), (90, 131), (20, 20), (51, 48)])
def test_pictures_are_prepared_as_by_the_package(shape: tuple[int, int]) -> None:
    picture = numpy_generator(3, 0, 0, "picture").integers(0, 256, (*shape, 3)).astype(np.uint8)
    torch.testing.assert_close(model().prepare([picture]), prepared_by_torchvision(picture), atol=1e-6, rtol=0)


def test_the_real_sizes_are_read_from_the_weights() -> None:
    """A ViT-L/16 for 224 px, a BERT base and BLIP's vocabulary, on the meta device under the official names."""
    from benchmarks.blip_reward import sizes_of

    with torch.device("meta"):
        weights = {
            "blip.visual_encoder.patch_embed.proj.weight": torch.empty(1024, 3, 16, 16),
            "blip.visual_encoder.pos_embed": torch.empty(1, 197, 1024),
            "blip.visual_encoder.blocks.0.mlp.fc1.weight": torch.empty(4096, 1024),
            **{f"blip.visual_encoder.blocks.{i}.norm1.bias": torch.empty(1024) for i in range(24)},
            "blip.text_encoder.embeddings.word_embeddings.weight": torch.empty(30524, 768),
            "blip.text_encoder.embeddings.position_embeddings.weight": torch.empty(512, 768),
            "blip.text_encoder.encoder.layer.0.intermediate.dense.weight": torch.empty(3072, 768),
            **{f"blip.text_encoder.encoder.layer.{i}.output.dense.bias": torch.empty(768) for i in range(12)},
        }
    vision, text = sizes_of(weights)
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == (1024, 24, 16)
    assert (vision.image_size, vision.patch_size, vision.intermediate_size) == (224, 16, 4096)
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads) == (768, 12, 12)
    assert (text.vocab_size, text.max_position_embeddings, text.encoder_hidden_size) == (30524, 512, 1024)


def test_its_gradient() -> None:
    assert check_gradient(metric("imagereward"), near=5e-3) == 0  # of the pictures beside it


def test_scores_depend_neither_on_the_batch_nor_on_autocast_nor_on_the_prompts_beside() -> None:
    pictures, prompts = drawn()
    judge = metric("imagereward")
    pictures, prompts = pictures * 2, prompts * 2  # more than one batch
    assert len(pictures) > inference.BATCH
    together = judge.score(pictures, prompts)
    alone = [judge.score([p], [q])[0] for p, q in zip(pictures[:5], prompts[:5], strict=True)]
    np.testing.assert_allclose(together[:5], alone, atol=2e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert judge.score(pictures, prompts) == together


def test_each_picture_is_scored_with_its_own_prompt() -> None:
    pictures, prompts = drawn()
    judge = metric("imagereward")
    turned = judge.score([pictures[0], pictures[0]], [prompts[0], prompts[5]])
    assert turned[0] == pytest.approx(judge.score(pictures[:1], prompts[:1])[0], abs=2e-5)
    assert abs(turned[0] - turned[1]) > 1e-3


def test_a_long_prompt_is_cut_at_35_tokens_and_capitals_do_not_count() -> None:
    pictures, _ = drawn()
    judge = metric("imagereward")

    def one(text: str) -> float:
        return judge.score(pictures[:1], [Prompt("0", text)])[0]

    assert one("red " * 33) == one("red " * 33 + "blue circle")
    assert one("red " * 33) != one("red " * 32)
    assert one("A RED circle") == one("a red circle")


def test_tokens_are_berts(models: Path) -> None:
    """Pieces of unknown words, accents and [ENC], which BLIP adds after the vocabulary."""
    tokenizer = model().tokenizer
    assert tokenizer.tokenize("Réd qz [ENC]") == ["red", "q", "##z", "[ENC]"]
    known = len((models / "vocab.txt").read_text().splitlines())
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[DEC]", "[ENC]"]) == [0, known, known + 1]


def test_flops_of_a_pair_are_those_of_pencil_and_paper() -> None:
    width, inner = tiny_blip.WIDTH, tiny_blip.INNER
    patches = (tiny_blip.SIDE // tiny_blip.PATCH) ** 2
    seen = patches + 1
    square = width * width
    eye = patches * width * 3 * tiny_blip.PATCH**2
    eye += tiny_blip.LAYERS * seen * (4 * square + 2 * seen * width + 2 * width * inner)
    reader = TOKENS * (2 * square + 2 * TOKENS * width + 2 * square)  # itself
    reader += TOKENS * (2 * square + 2 * seen * width) + 2 * seen * square  # the picture
    reader += TOKENS * 2 * width * inner
    head = width * 1024 + 1024 * 128 + 128 * 64 + 64 * 16 + 16
    assert metric("imagereward").flops_per_image == 2 * (eye + tiny_blip.LAYERS * reader + head)


def test_releasing_frees_it_and_the_next_score_loads_it_again() -> None:
    judge = metric("imagereward")
    before, held = judge.score(*drawn()), model()
    judge.release()
    assert judge.score(*drawn()) == before
    assert model() is not held


def test_records_name_both_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metric("imagereward").describe()["weights"].count("stand-in sha256:") == 2
    monkeypatch.delenv("BENCH_ASSET_IMAGEREWARD_V1")
    monkeypatch.delenv("BENCH_ASSET_BERT_VOCABULARY")
    weights = metric("imagereward").describe()["weights"]
    assert weights.startswith("THUDM/ImageReward@5736be03b2652728fb87788c9797b0570450ab72, sha256:07eced375cec")


def _without(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda weights: weights.pop(name)


def _as_base(weights: dict[str, Tensor]) -> None:
    weights["blip.visual_encoder.patch_embed.proj.weight"] = torch.zeros(96, 3, 16, 16)


def _one_more(weights: dict[str, Tensor]) -> None:
    weights["blip.text_decoder.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("blip.visual_encoder.patch_embed.proj.weight"), "patch_embed.proj.weight"),
        (_without("blip.text_encoder.encoder.layer.1.crossattention.self.key.weight"), "Missing key(s)"),
        (_without("mlp.layers.7.bias"), 'Missing key(s) in state_dict: "mlp.7.bias"'),
        (_as_base, "96 and 128 are no multiples"),
        (_one_more, 'Unexpected key(s) in state_dict: "blip.text_decoder.weight"'),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Tensor]], object],
    said: str,
) -> None:
    weights = torch.load(models / "ImageReward.pt", weights_only=True)
    change(weights)
    torch.save(weights, tmp_path / "other.pt")
    monkeypatch.setenv("BENCH_ASSET_IMAGEREWARD_V1", str(tmp_path / "other.pt"))
    message = one_line(metric("imagereward").prepare)
    assert message.startswith(f"{tmp_path / 'other.pt'} is no checkpoint of ImageReward: ")
    assert said in message


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("ran-by-a-pickle",))


@pytest.mark.parametrize("content", ["code", "no checkpoint", "a list", "absent"])
def test_a_file_of_another_kind_is_refused_and_nothing_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "ImageReward.pt"
    if content == "no checkpoint":
        path.write_bytes(b"404: Not Found")
    elif content != "absent":
        torch.save({"code": _Code(), "a list": [torch.zeros(1)]}[content], path)
    monkeypatch.setenv("BENCH_ASSET_IMAGEREWARD_V1", str(tmp_path))
    assert one_line(metric("imagereward").prepare).startswith(f"{path} is no checkpoint of ImageReward: ")
    assert not (tmp_path / "ran-by-a-pickle").exists()


@pytest.mark.parametrize("content", ["[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred\n", ""])
def test_another_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text(content)
    monkeypatch.setenv("BENCH_ASSET_BERT_VOCABULARY", str(path))
    assert one_line(metric("imagereward").prepare).startswith(f"{path} ")


@pytest.mark.parametrize("picture", [np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.uint8)])
def test_a_picture_of_another_form_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="and not uint8"):
        metric("imagereward").score([picture], [Prompt("0", "a circle")])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_cpus_scores() -> None:
    check_on_a_gpu(metric("imagereward"), VALUE)
