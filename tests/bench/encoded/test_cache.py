from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import CAPTIONS, spec
from safetensors import safe_open

from bench import records
from bench.backbone.loader import Backbone
from bench.corpus import BadPair, Corpus, Manifest
from bench.encoded import store
from bench.encoded.ahead import AheadText
from bench.encoded.encode import TEXT_BATCH, encode_pictures, encode_texts
from bench.encoded.store import Rows, Store, owner
from bench.encoded.subset import StoredText, training_data
from bench.errors import BenchError
from bench.machine.crew import Crew

WIDE, TALL, SQUARE = (24, 16), (8, 32), (16, 16)  # width and height in pixels; a latent is 4 x 4 of them
PLENTY = 10**9


class Pictures(Corpus):
    """Noise pictures of three shapes, six captions."""

    name = "pictures"
    fingerprint = "f" * 64

    def __init__(self, count: int = 12, sizes: tuple[tuple[int, int], ...] = (SQUARE, WIDE, TALL)) -> None:
        rng = np.random.default_rng(0)
        self.sizes = [sizes[i % len(sizes)] for i in range(count)]
        self.pixels = [rng.integers(0, 256, (height, width, 3), np.uint8) for width, height in self.sizes]
        self.broken: set[int] = set()

    def __len__(self) -> int:
        return len(self.pixels)

    def caption(self, index: int) -> str:
        return [*CAPTIONS, "a"][index % 6]

    def image(self, index: int) -> np.ndarray:
        if index in self.broken:
            raise BadPair("its picture is cut short")
        return self.pixels[index]


def subset(corpus: Corpus, indices, sizes=None) -> Manifest:
    indices = list(indices)
    keys = tuple(corpus.key(i) for i in indices)
    size = tuple(sizes or (corpus.size(i) for i in indices))
    head = ("some", corpus.name, corpus.fingerprint, None, None, None, len(keys), len(corpus), "hash")
    return Manifest(*head, indices=tuple(indices), keys=keys, sizes=size, path=Path("manifest.json"))


class Watched:
    """A backbone that remembers what it was asked to encode."""

    def __init__(self, backbone: Backbone, *, scale: str = "embedded", fingerprint: str | None = None) -> None:
        self._backbone = backbone
        self.spec = dataclasses.replace(backbone.spec, scale=scale)
        self.fingerprint = fingerprint or backbone.fingerprint
        self.pictures: set[bytes] = set()
        self.texts: list[str] = []
        self.loaded = 0
        self.live = 0

    def __getattr__(self, name: str):
        return getattr(self._backbone, name)

    def encode_images(self, images: np.ndarray) -> torch.Tensor:
        self.pictures |= {image.tobytes() for image in images}
        return self._backbone.encode_images(images)

    def encode_prompts(self, texts):
        self.texts += texts
        return self._backbone.encode_prompts(texts)

    @contextmanager
    def text_encoders(self):
        self.loaded, self.live = self.loaded + 1, self.live + 1
        with self._backbone.text_encoders() as pipeline:
            yield pipeline
        self.live -= 1


@pytest.fixture(scope="module")
def loaded(tiny_pipeline):
    """A backbone whose VAE and text encoders are loaded for all tests together, which takes half a second each time."""
    backbone = Backbone(spec(tiny_pipeline))
    with backbone.vae_loaded(), backbone.text_encoders():
        yield backbone


@pytest.fixture
def backbone(loaded):
    return Watched(loaded)


@pytest.fixture
def corpus():
    return Pictures()


def make(backbone, corpus, folder, indices=range(12), *, text_limit=PLENTY, **crew):
    return training_data(backbone, corpus, subset(corpus, indices), folder, text_limit=text_limit, crew=Crew(**crew))


def shards(folder: Path, kind: str = "") -> list[Path]:
    return sorted(folder.glob(f"encoded/*/{kind}*/*.safetensors"))


def every(data) -> list[torch.Tensor]:
    """Each pair's latents, then each caption's condition."""
    text = data.text[torch.arange(len(data.text))]
    pairs = [data.latents[torch.tensor([i])] for i in range(len(data.latents))]
    return [*pairs, text.prompt_embeds, text.pooled_prompt_embeds]


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(every(one), every(other), strict=True))


# -- what is read is what was encoded -------------------------------------------------------------------------------


def test_reading_equals_encoding(backbone, corpus, tmp_path):
    order = [7, 0, 3, 11, 6, 9]
    data = make(backbone, corpus, tmp_path, order)
    assert data.shapes.tolist() == [list(backbone.latent_shape_of(*corpus.size(i))) for i in order]
    for shape in ([4, 4, 4], [4, 4, 6], [4, 8, 2]):
        rows = [row for row in range(len(order)) if data.shapes[row].tolist() == shape]
        if not rows:
            continue
        pixels = np.stack([corpus.image(order[row]) for row in rows])
        read = data.latents[torch.tensor(rows)]
        assert read.dtype == torch.float32 and list(read.shape[1:]) == shape
        assert torch.equal(read, encode_pictures(backbone, pixels))
        torch.testing.assert_close(read, backbone.encode_images(pixels), atol=1e-4, rtol=0)
    texts = [prompt.text for prompt in data.prompts]
    assert texts == sorted({corpus.caption(i) for i in order})
    assert [texts[row] for row in data.text_of.tolist()] == [corpus.caption(i) for i in order]
    text, expected = data.text[torch.arange(len(texts))], backbone.encode_prompts(texts)
    torch.testing.assert_close(text.prompt_embeds, expected.prompt_embeds)
    torch.testing.assert_close(text.pooled_prompt_embeds, expected.pooled_prompt_embeds)
    assert len(data.latents) == 6 and len(data.text) == len(texts)


def test_a_row_does_not_depend_on_its_neighbours(backbone):
    corpus = Pictures(9, (SQUARE,))
    pixels = np.stack([corpus.image(i) for i in range(9)])
    whole = encode_pictures(backbone, pixels)
    assert torch.equal(whole, torch.cat([encode_pictures(backbone, pixels[i : i + 1]) for i in range(9)]))
    texts = [CAPTIONS[i % 5] + " a" * (i % 3) for i in range(TEXT_BATCH + 3)]
    with backbone.text_encoders():
        one = encode_texts(backbone, texts, torch.float32)
        each = [encode_texts(backbone, [text], torch.float32) for text in texts]
    for row, alone in enumerate(each):
        assert torch.equal(alone.prompt_embeds[0], one.prompt_embeds[row])
        assert torch.equal(alone.pooled_prompt_embeds[0], one.pooled_prompt_embeds[row])


def test_a_batch_of_two_shapes_is_refused(backbone, corpus, tmp_path):
    data = make(backbone, corpus, tmp_path)
    with pytest.raises(ValueError, match="do not fit into one batch"):
        data.latents[torch.tensor([0, 1])]
    assert data.latents[torch.tensor([0, 3, 0])].shape == (3, 4, 4, 4)


def test_the_same_picture_at_another_size_has_latents_of_its_own(backbone, tmp_path):
    small, large = Pictures(2, (SQUARE,)), Pictures(2, ((32, 32),))
    keys = subset(small, range(2)).keys
    large.key = lambda index: keys[index]
    one = make(backbone, small, tmp_path, range(2))
    two = training_data(backbone, large, subset(large, range(2)), tmp_path, text_limit=PLENTY)
    assert one.latents[torch.tensor([0])].shape == (1, 4, 4, 4)
    assert two.latents[torch.tensor([0])].shape == (1, 4, 8, 8)


def test_large_scale_stores_text_in_bfloat16_and_latents_in_float32(loaded, backbone, corpus, tmp_path):
    full = make(Watched(loaded, scale="full"), corpus, tmp_path / "full")
    embedded = make(backbone, corpus, tmp_path / "embedded")
    index = torch.arange(len(full.text))
    rounded = embedded.text[index].prompt_embeds.bfloat16()
    assert not torch.equal(rounded.float(), embedded.text[index].prompt_embeds)
    assert full.text[index].prompt_embeds.dtype == torch.float32
    assert torch.equal(full.text[index].prompt_embeds, rounded.float())
    assert torch.equal(full.latents[torch.tensor([0, 3])], embedded.latents[torch.tensor([0, 3])])
    assert {path.parent.name for path in shards(tmp_path / "full", "text")} == {"text-12-float32-bfloat16"}


def test_the_layout_says_what_each_row_is(backbone, corpus, tmp_path):
    make(backbone, corpus, tmp_path, range(6))
    (latents,) = shards(tmp_path, "latents-4x4x6")
    assert latents.parents[1].name == backbone.fingerprint[:16]
    with safe_open(latents, "pt") as file:
        keys = [bytes(row.tolist()).hex() for row in file.get_tensor("keys")]
        assert file.metadata()["backbone"] == backbone.fingerprint
        assert torch.equal(file.get_tensor("latents")[keys.index(corpus.key(4))], _latent(backbone, corpus, 4))
    (text,) = shards(tmp_path, "text-12-float32-float32")
    with safe_open(text, "pt") as file:
        keys = {bytes(row.tolist()).hex() for row in file.get_tensor("keys")}
    assert keys == {hashlib.sha256(caption.encode()).hexdigest() for caption in [*CAPTIONS, "a"]}


def _latent(backbone, corpus, index: int) -> torch.Tensor:
    return encode_pictures(backbone, corpus.image(index)[None])[0]


def test_rows_are_read_through_a_map_and_not_with_their_file(tmp_path):
    # 12 GB of zeros that take no disk: reading them whole would take longer than anyone waits
    rows, width = 3000, 2**20
    crc = np.full(rows, store.zlib.crc32(bytes(4 * width)), np.int64)
    keys = np.frombuffer(b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(rows)), np.uint8)
    header, start = {"__metadata__": {"layout": "1"}}, 0
    sizes = {"keys": ("U8", [rows, 32], 1), "latents.crc32": ("I64", [rows], 8), "latents": ("F32", [rows, width], 4)}
    for name, (dtype, shape, size) in sizes.items():
        stop = start + int(np.prod(shape)) * size
        header[name], start = {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}, stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + keys.tobytes() + crc.tobytes())
        file.truncate(8 + len(text) + start)
    if path.stat().st_blocks * 512 > 2**30:
        pytest.skip("this file system keeps no sparse files")
    with path.open("r+b") as file:
        file.seek(-4, 2)
        file.write(np.float32(3).tobytes())
    folder = Store(tmp_path, {})
    places = folder.places([hashlib.sha256(b"%d" % i).hexdigest() for i in range(rows)])
    before = _resident()
    assert not Rows(places).read("latents", torch.tensor([0, 1500, 2500])).any()
    assert _resident() - before < 100 * 2**20
    with pytest.raises(BenchError, match=r"huge\.safetensors is damaged \(row 2999 of latents does not match"):
        Rows(places).read("latents", torch.tensor([rows - 1]))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# -- nothing is encoded twice ------------------------------------------------------------------------------------


def test_overlapping_subsets_share_what_is_encoded(backbone, corpus, tmp_path):
    make(backbone, corpus, tmp_path, range(8))
    before = shards(tmp_path)
    backbone.pictures.clear()
    data = make(backbone, corpus, tmp_path, range(5, 12))
    assert backbone.pictures == {corpus.image(i).tobytes() for i in range(8, 12)}
    assert set(before) < set(shards(tmp_path))
    assert same(data, make(backbone, corpus, tmp_path / "alone", range(5, 12)))


def test_a_third_time_nothing_is_loaded(backbone, corpus, tmp_path):
    first = make(backbone, corpus, tmp_path)
    backbone.pictures.clear()
    backbone.texts.clear()
    backbone.loaded = 0
    again = make(backbone, corpus, tmp_path, reversed(range(12)))
    assert not backbone.pictures and not backbone.texts and not backbone.loaded
    assert torch.equal(again.latents[torch.tensor([11])], first.latents[torch.tensor([0])])


def test_equal_pairs_are_encoded_once(backbone, corpus, tmp_path):
    data = make(backbone, corpus, tmp_path, [3, 0, 3])
    assert len(data.latents) == 3
    assert torch.equal(data.latents[torch.tensor([0])], data.latents[torch.tensor([2])])
    (path,) = shards(tmp_path, "latents")
    with safe_open(path, "pt") as file:
        assert len(file.get_tensor("keys")) == 2


@pytest.mark.parametrize("kind", ["latents", "text"])
def test_a_killed_run_loses_one_shard_at_most(kind, backbone, corpus, tmp_path, monkeypatch):
    whole = make(backbone, corpus, tmp_path / "whole")
    monkeypatch.setattr(store, "SHARD_ROWS", 2)
    write, written = store.write_shard, []

    def killed(folder, keys, *rest):
        if folder.name.startswith(kind) and len(written) == 2:
            raise KeyboardInterrupt
        path = write(folder, keys, *rest)
        written.extend([keys] if folder.name.startswith(kind) else [])
        return path

    monkeypatch.setattr(store, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        make(backbone, corpus, tmp_path / "killed")
    kept = {key for keys in written for key in keys}
    assert len(kept) == 4
    monkeypatch.setattr(store, "write_shard", write)
    backbone.pictures.clear()
    backbone.texts.clear()
    resumed = make(backbone, corpus, tmp_path / "killed")
    if kind == "latents":
        assert len(backbone.pictures) == 8
    else:
        assert len(set(backbone.texts)) == 2
    assert same(resumed, whole)


def test_shards_stay_under_their_limits(backbone, tmp_path, monkeypatch):
    corpus = Pictures(20, (SQUARE,))
    monkeypatch.setattr(store, "SHARD_BYTES", 7 * 4 * 4 * 4 * 4)
    make(backbone, corpus, tmp_path, range(20))
    counts = []
    for path in shards(tmp_path, "latents"):
        with safe_open(path, "pt") as file:
            counts.append(len(file.get_tensor("keys")))
    assert sorted(counts) == [6, 7, 7]


# -- ranks -----------------------------------------------------------------------------------------------------------


def test_two_ranks_encode_disjoint_shares_and_read_the_same(backbone, tiny_pipeline, corpus, tmp_path):
    alone = make(backbone, corpus, tmp_path / "one")
    meet = threading.Barrier(2)
    both = [Watched(Backbone(spec(tiny_pipeline))) for _ in range(2)]
    ticks: list[list[int]] = [[], []]
    lines: list[str] = []

    def run(rank: int):
        options = {"rank": rank, "world_size": 2, "barrier": lambda: meet.wait(60)}
        return make(both[rank], corpus, tmp_path / "two", tick=ticks[rank].append, say=lines.append, **options)

    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        for rank in both:  # processes may load models at the same time, threads may not
            stack.enter_context(rank.vae_loaded())
            stack.enter_context(rank.text_encoders())
        datas = list(pool.map(run, range(2)))
    assert same(datas[0], alone) and same(datas[1], alone)
    assert not both[0].pictures & both[1].pictures
    assert len(both[0].pictures | both[1].pictures) == 12
    assert all(backbone.pictures for backbone in both)
    assert list(map(sum, ticks)) == [12, 12]
    assert len(lines) == 1


def test_ranks_that_come_one_after_the_other_share_the_work_too(tmp_path):
    keys = [hashlib.sha256(b"%d" % i).hexdigest() for i in range(40)]
    asked = []

    def encode(now, then):
        asked.extend(now)
        return {"latents": torch.tensor([[float(i)] for i in now])}

    for rank in range(3):
        fresh = Store(tmp_path, {"backbone": "b"})
        count = fresh.fill(keys, encode, row_bytes=4, batch=3, crew=Crew(rank, 3))
        assert count == sum(owner(key, 3) == rank for key in keys) > 0
    assert sorted(asked) == list(range(40))
    fresh.open()
    assert Rows(fresh.places(keys)).read("latents", torch.arange(40)).flatten().tolist() == list(range(40))


def test_the_batch_after_this_one_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_ROWS", 4)
    seen = []

    def encode(now, then):
        seen.append((now, then))
        return {"latents": torch.zeros(len(now), 1)}

    keys = [hashlib.sha256(b"%d" % i).hexdigest() for i in range(7)]
    Store(tmp_path, {}).fill(keys, encode, row_bytes=4, batch=2)
    assert [now for now, _ in seen] == [(0, 1), (2, 3), (4, 5), (6,)]
    assert [then for _, then in seen] == [(2, 3), (4, 5), (6,), None]


# -- text that does not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["embedded", "full"])
def test_text_encoded_ahead_equals_cached_text_bit_for_bit(loaded, corpus, tmp_path, scale):
    backbone = Watched(loaded, scale=scale)
    cached = make(backbone, corpus, tmp_path / "cached")
    ahead = make(backbone, corpus, tmp_path / "ahead", text_limit=10)
    assert isinstance(cached.text, StoredText) and isinstance(ahead.text, AheadText)
    assert len(cached.text) == len(ahead.text) == 6
    for rows in ([3], [0, 5, 1], [2, 2], list(range(6)) * 4):
        one, other = (data.text[torch.tensor(rows)] for data in (cached, ahead))
        assert other.prompt_embeds.dtype == torch.float32
        assert torch.equal(one.prompt_embeds, other.prompt_embeds)
        assert torch.equal(one.pooled_prompt_embeds, other.pooled_prompt_embeds)
    ahead.close()


def test_the_choice_is_said_in_one_line_with_sizes(backbone, corpus, tmp_path):
    lines: list[str] = []
    row = 4 * (24 * 32 + 32)  # 12 + 12 tokens of width 32, and a pooled vector of width 32, in float32
    make(backbone, corpus, tmp_path, text_limit=6 * row - 1, say=lines.append).close()
    assert not shards(tmp_path, "text")
    make(backbone, corpus, tmp_path, text_limit=6 * row, say=lines.append)
    make(backbone, corpus, tmp_path, text_limit=0, say=lines.append)
    assert [line.split(";")[0] for line in lines] == [
        "text: 6 captions are encoded ahead on a worker",
        "text: 6 captions are cached",
        "text: the cache (0.000 GB) has the embeddings of all 6 captions",
    ]
    assert "they would bring the cache to 0.000 GB, and its limit is 0.000 GB" in lines[0]


def test_the_limit_counts_what_the_cache_holds_already(backbone, corpus, tmp_path):
    row = 4 * (24 * 32 + 32)
    make(backbone, corpus, tmp_path, range(3), text_limit=4 * row)
    data = make(backbone, corpus, tmp_path, range(3, 6), text_limit=4 * row)
    assert isinstance(data.text, AheadText)
    data.close()


def test_sizes_are_in_gigabytes():
    assert store.gigabytes(762.44e9) == "762.4 GB"
    assert store.gigabytes(1.2345e12) == "1,234.5 GB"
    assert store.gigabytes(4.2e6) == "0.004 GB"


def test_encoders_are_loaded_once_and_freed_at_the_end(backbone):
    text = AheadText(backbone, CAPTIONS, torch.float32)
    text.announce(torch.tensor([0, 1]))
    text.announce(torch.tensor([2]))
    text[torch.tensor([0, 1])]
    text[torch.tensor([2])]
    text[torch.tensor([3])]  # never announced
    assert backbone.loaded == 1 and backbone.live == 1
    assert len(backbone.texts) == 3 * TEXT_BATCH
    text.close()
    assert backbone.live == 0


def test_announced_text_is_encoded_before_it_is_asked_for(backbone, monkeypatch):
    done = threading.Event()
    encode = backbone.encode_prompts
    monkeypatch.setattr(backbone, "encode_prompts", lambda texts: (encode(texts), done.set())[0])
    text = AheadText(backbone, CAPTIONS, torch.float32)
    text.announce(torch.tensor([1]))
    assert done.wait(60)
    text.close()


def test_text_held_ahead_is_bounded(backbone):
    text = AheadText(backbone, CAPTIONS, torch.float32, batches=2)
    for row in (0, 1, 0, 2):  # 1 is the one used longest ago
        text[torch.tensor([row])]
    backbone.texts.clear()
    text[torch.tensor([0])]
    assert not backbone.texts
    text[torch.tensor([1])]
    assert set(backbone.texts) == {CAPTIONS[1]}
    text.close()


def test_an_error_of_the_encoders_reaches_the_caller_and_is_not_kept(backbone, monkeypatch):
    text = AheadText(backbone, CAPTIONS, torch.float32)
    encode = backbone.encode_prompts

    def fail(texts):
        raise BenchError("out of memory")

    monkeypatch.setattr(backbone, "encode_prompts", fail)
    text.announce(torch.tensor([0]))
    with pytest.raises(BenchError, match="out of memory"):
        text[torch.tensor([0])]
    monkeypatch.setattr(backbone, "encode_prompts", encode)
    assert len(text[torch.tensor([0])]) == 1
    text.close()


# -- bad input -------------------------------------------------------------------------------------------------------


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_cache_of_another_backbone_is_refused(backbone, loaded, corpus, tmp_path):
    make(backbone, corpus, tmp_path)
    other = Watched(loaded, fingerprint="0123456789abcdef" * 4)
    (tmp_path / "encoded" / backbone.fingerprint[:16]).rename(tmp_path / "encoded" / "0123456789abcdef")
    with pytest.raises(BenchError, match="delete it; the next run encodes its rows again") as error:
        make(other, corpus, tmp_path)
    line = one_line(error)
    assert f"was encoded by another backbone ({backbone.fingerprint[:16]}, not 0123456789abcdef)" in line
    assert any(str(path) in line for path in shards(tmp_path))


def test_a_shard_in_the_wrong_folder_is_refused(backbone, corpus, tmp_path):
    make(backbone, corpus, tmp_path)
    (text,) = shards(tmp_path, "text")
    (latents, *_) = shards(tmp_path, "latents")
    text.rename(latents.parent / text.name)
    with pytest.raises(BenchError, match=r"does not belong there \(its kind is text-12-float32-float32, not latents-"):
        make(backbone, corpus, tmp_path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def header_lost(path: Path) -> None:
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])


def foreign(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weights": torch.zeros(3)}, path)


def bit_flipped(path: Path) -> None:
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if f"{name}.crc32" in file.keys() and name != "keys"]  # noqa: SIM118
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    start, _ = json.loads(content[8 : 8 + length])[names[0]]["data_offsets"]
    content[8 + length + start] ^= 1
    path.write_bytes(content)


def keys_exchanged(path: Path) -> None:
    """Two pairs, or two captions, have each other's rows; every row is whole."""
    from safetensors.torch import load_file, save_file

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["keys"][:2] = tensors["keys"][:2].flip(0)
    save_file(tensors, path, metadata)


def rows_exchanged(path: Path) -> None:
    """The same the other way round: the rows change places, with their checksums, and the keys do not."""
    from safetensors.torch import load_file, save_file

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for name in tensors.keys() - {"keys", "keys.crc32"}:
        tensors[name][:2] = tensors[name][:2].flip(0)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    "harm", [cut_short, emptied, header_lost, foreign, bit_flipped, keys_exchanged, rows_exchanged]
)
@pytest.mark.parametrize("kind", ["latents", "text"])
def test_a_damaged_shard_is_named_and_encoded_again_once_deleted(harm, kind, backbone, corpus, tmp_path):
    whole = make(backbone, corpus, tmp_path / "whole")
    make(backbone, corpus, tmp_path)
    path = shards(tmp_path, kind)[0]
    harm(path)
    with pytest.raises(BenchError, match=r"is damaged .*; delete it; the next run encodes its rows again") as error:
        every(make(backbone, corpus, tmp_path))
    assert str(path) in one_line(error)
    path.unlink()
    backbone.pictures.clear()
    assert same(make(backbone, corpus, tmp_path), whole)
    assert len(backbone.pictures) == (4 if kind == "latents" else 0)


def test_a_shard_that_vanishes_or_shrinks_while_it_is_used_is_named(backbone, corpus, tmp_path):
    data = make(backbone, corpus, tmp_path)
    path = shards(tmp_path, "latents-4x4x4")[0]
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(BenchError, match=r"cannot be read any more .*; run the same command again") as error:
        data.latents[torch.tensor([0])]
    assert str(path) in one_line(error)
    path.write_bytes(content[:-4096] if len(content) > 5000 else content[:1000])
    with pytest.raises(BenchError, match=r"is damaged \(it has \d+ bytes instead of \d+\)"):
        data.latents[torch.tensor([0])]


def test_too_little_disk_is_said_before_anything_is_encoded(backbone, corpus, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda folder: usage(1000))
    with pytest.raises(records.DiskFull, match=r"will take 0\.000 GB more and the disk has 0\.000 GB free; free some"):
        make(backbone, corpus, tmp_path)
    assert not backbone.pictures


def test_a_disk_that_fills_up_ends_in_one_line_and_leaves_no_half_shard(backbone, corpus, tmp_path, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(records.DiskFull, match=r"the disk is full: could not write .*safetensors") as error:
            make(backbone, corpus, tmp_path)
        one_line(error)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    make(backbone, corpus, tmp_path)


def test_a_picture_that_cannot_be_read_any_more_is_named(backbone, corpus, tmp_path):
    some = subset(corpus, range(12))
    corpus.broken = {4}
    with pytest.raises(BenchError, match=r"pair 4 of pictures could be read .* \(its picture is cut short\)") as error:
        training_data(backbone, corpus, some, tmp_path, text_limit=PLENTY)
    one_line(error)


def test_a_picture_exchanged_since_the_scan_is_not_encoded_under_the_old_key(backbone, corpus, tmp_path):
    some = subset(corpus, range(12))
    corpus.pixels[5] = corpus.pixels[5][::-1].copy()
    with pytest.raises(BenchError, match="pair 5 of pictures is not the one that was scanned; put the picture back"):
        training_data(backbone, corpus, some, tmp_path, text_limit=PLENTY)


def test_progress_adds_up_whatever_is_there(backbone, corpus, tmp_path):
    for indices in (range(5), [3, 3, 7, 1], range(12)):
        ticks: list[int] = []
        make(backbone, corpus, tmp_path, indices, tick=ticks.append)
        assert sum(ticks) == len(indices)


def test_no_thread_outlives_the_encoding(backbone, corpus, tmp_path):
    before = set(threading.enumerate())
    make(backbone, corpus, tmp_path)
    assert set(threading.enumerate()) <= before
    some = subset(corpus, range(12))
    corpus.broken = {0}
    with pytest.raises(BenchError):
        training_data(backbone, corpus, some, tmp_path / "broken", text_limit=PLENTY)
    assert set(threading.enumerate()) <= before
