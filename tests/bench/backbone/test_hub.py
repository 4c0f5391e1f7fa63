"""Finding a pipeline: local folders, the hub's answers through a real client, its cache; and the fingerprint."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fake_hub
import pipelines
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from bench.backbone import hub
from bench.backbone.family import check_family
from bench.errors import BenchError

NAME = "maker/model"


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a hub repository of SD3.5-M's kind holds: a pipeline, and much that the harness does not read."""
    folder = pipelines.make_sd35(tmp_path_factory.mktemp("hub") / "upload", size="medium")
    weights = (folder / "text_encoder" / "model.safetensors").read_bytes()
    for extra in (
        "sd3.5_medium.safetensors",
        "text_encoders/clip_l.safetensors",
        "text_encoder/model.fp16.safetensors",
        "text_encoder_3/model.fp16-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model.fp16.safetensors",
        "transformer/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.bin",
        "vae_1_0/diffusion_pytorch_model.safetensors",
        "README.md",
        "LICENSE.md",
        "sample.png",
    ):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_bytes(weights)
    return folder


@pytest.fixture
def server(upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_hub.FakeHub]:
    """The hub, with an empty cache, no token and no proxy."""
    with fake_hub.serve() as running:
        running.models[NAME] = fake_hub.Model(upload)
        _client(monkeypatch, running.url, tmp_path / "cache")
        disable_progress_bars()
        yield running
        enable_progress_bars()


def _client(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Point the hub's client, which reads its settings once at import, to ``url`` and ``cache``."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def _line(name: str = NAME, *, revision: str | None = None, offline: bool = False) -> str:
    with pytest.raises(BenchError) as raised:
        hub.resolve(name, revision=revision, offline=offline)
    line = str(raised.value)
    assert "\n" not in line
    return line


def test_a_folder_is_itself(upload: Path) -> None:
    assert hub.resolve(str(upload)) == upload.resolve()
    assert hub.resolve(str(upload), offline=True) == upload.resolve()


def test_a_hub_id_is_downloaded_without_what_is_not_read(server: fake_hub.FakeHub, upload: Path) -> None:
    folder = hub.resolve(NAME)
    wanted = {p.relative_to(upload).as_posix() for p in hub.files(upload)} | {"README.md", "LICENSE.md"}
    assert server.files_sent() <= wanted  # of two files with the same content, one is sent
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == wanted
    assert "transformer/diffusion_pytorch_model.safetensors.index.json" in wanted
    assert {"tokenizer/merges.txt", "tokenizer_3/tokenizer.json", "scheduler/scheduler_config.json"} <= wanted
    assert not [name for name in wanted if "fp16" in name or name.endswith(".bin") or "clip_l" in name]
    assert check_family(folder).title == "SD3"
    assert hub.commit(folder) == fake_hub.COMMIT
    assert hub.commit(upload) is None


def test_what_was_downloaded_is_found_offline_and_without_a_network(
    server: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hub.resolve(NAME)
    asked = len(server.requests)
    assert hub.resolve(NAME, offline=True) == folder
    assert len(server.requests) == asked
    _client(monkeypatch, _closed_port(), Path(constants.HF_HUB_CACHE))
    assert hub.resolve(NAME) == folder


def test_gated_without_a_login_says_how_to_get_in(server: fake_hub.FakeHub) -> None:
    server.models[NAME].gated = True
    line = _line()
    assert f"accept its licence at {server.url}/{NAME}" in line
    assert "hf auth login" in line
    assert "HF_TOKEN" in line


def test_gated_for_this_account_and_open_for_another(server: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.models[NAME].gated = True
    monkeypatch.setenv("HF_TOKEN", "someone")
    assert "accept its licence" in _line()
    monkeypatch.setenv("HF_TOKEN", "granted")
    assert check_family(hub.resolve(NAME)).title == "SD3"


def test_a_token_that_the_hub_refuses(server: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "expired")
    assert "refuses your token" in _line()


@pytest.mark.parametrize("token", [None, "someone"])
def test_a_repository_that_is_not_there(
    server: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert "maker/other is neither a folder here nor a model at" in _line("maker/other")
    assert "did you mean 'stabilityai/stable-diffusion-3.5-medium'?" in _line("stabilityai/stable-diffusion-3.5-meduim")


def test_a_revision_that_is_not_there(server: fake_hub.FakeHub) -> None:
    line = _line(revision="v9")
    assert "has no revision 'v9'" in line
    assert f"{server.url}/{NAME}/tree/main" in line


def test_no_network_and_not_in_the_cache(server: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    _client(monkeypatch, _closed_port(), Path(constants.HF_HUB_CACHE))
    line = _line()
    assert "cannot be reached" in line
    assert constants.HF_HUB_CACHE in line


def test_the_hub_is_down_and_not_in_the_cache(server: fake_hub.FakeHub) -> None:
    server.down = True
    assert "answers 503" in _line()


def test_offline_and_not_in_the_cache(server: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not in the cache" in _line(offline=True)
    assert "without --offline" in _line(offline=True)
    assert not server.requests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE=0" in _line()


def test_an_incomplete_cache(server: fake_hub.FakeHub) -> None:
    folder = hub.resolve(NAME)
    next(folder.glob("transformer/*-00002-of-*")).unlink()
    line = _line(offline=True)
    assert "only a part" in line
    assert "run once online" in line
    assert check_family(hub.resolve(NAME)).title == "SD3"  # online, it is completed
    assert hub.resolve(NAME, offline=True) == folder


def test_a_full_disk(server: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    line = _line()
    assert "no space left" in line
    assert "HF_HOME" in line


def test_a_download_that_breaks_off(server: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Exception):  # the transport's own error
        pass

    def cut(*args: object, **options: object) -> str:
        raise Broken("peer closed the connection\nwith details")

    monkeypatch.setattr("huggingface_hub.snapshot_download", cut)
    assert "broke off (peer closed the connection); run again" in _line()


def test_names_that_are_neither_folder_nor_id(tmp_path: Path) -> None:
    assert "did you mean 'tiny-sd3'?" in _line("tiny-sd33")
    assert "did you mean 'stabilityai/stable-diffusion-3.5-medium'?" in _line("stable-diffusion-3.5-medium")
    assert _line(f"{tmp_path}/none") == f"there is no folder {tmp_path}/none"
    assert _line("../none/at/all") == "there is no folder ../none/at/all"
    assert "neither a folder nor a hub id" in _line("my model")
    assert "neither a folder nor a hub id" in _line("maker/..double")
    (tmp_path / "single.safetensors").touch()
    assert "is a file" in _line(str(tmp_path / "single.safetensors"))


def test_a_revision_of_a_folder_means_nothing(upload: Path) -> None:
    assert "leave the revision out" in _line(str(upload), revision="main")


def test_hf_endpoint_is_followed(server: fake_hub.FakeHub, tmp_path: Path) -> None:
    """The whole way, in a fresh process that knows the hub by its environment alone."""
    code = f"from bench.backbone import hub; print(hub.resolve({NAME!r}))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).name == fake_hub.COMMIT
    assert str(tmp_path / "home") in done.stdout


def test_the_fingerprint_covers_names_and_contents(upload: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(upload, copy)
    whole = hub.fingerprint(upload)
    assert hub.fingerprint(copy) == whole
    (copy / "README.md").write_text("not read by the harness")
    (copy / "transformer" / "diffusion_pytorch_model.bin").unlink()
    assert hub.fingerprint(copy) == whole
    vocab = copy / "tokenizer" / "vocab.json"
    vocab.write_text(vocab.read_text() + " ")
    changed = hub.fingerprint(copy)
    assert changed != whole
    vocab.rename(vocab.with_name("other.json"))
    assert hub.fingerprint(copy) not in (whole, changed)


def test_the_fingerprint_covers_shards_of_any_name(upload: Path, tmp_path: Path) -> None:
    """An index may list them, and what it lists is loaded."""
    part = shutil.copytree(upload, tmp_path / "copy") / "transformer"
    single = part / "diffusion_pytorch_model.safetensors"
    for file in [single, *part.glob("*-of-*.safetensors")]:
        file.unlink(missing_ok=True)
    shard = part / "part_a.safetensors"
    shard.write_bytes(b"one")
    (part / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": shard.name}}))
    before = hub.fingerprint(part.parent)
    assert shard in hub.files(part.parent)
    shard.write_bytes(b"two")
    assert hub.fingerprint(part.parent) != before


def test_the_fingerprint_of_a_cached_snapshot_reads_no_weights(server: fake_hub.FakeHub, upload: Path) -> None:
    folder = hub.resolve(NAME)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    assert weights.is_symlink()
    assert len(weights.resolve().name) == 64
    assert (folder / "model_index.json").is_symlink()  # a small file: its blob has git's name, so it is hashed
    assert hub.fingerprint(folder) == hub.fingerprint(upload)
    blob = weights.resolve()
    blob.write_bytes(b"not read")
    assert hub.fingerprint(folder) == hub.fingerprint(upload)


def test_links_outside_a_hub_cache_are_hashed(tmp_path: Path) -> None:
    """A folder that someone calls ``blobs`` proves nothing."""
    folder = tmp_path / "pipeline"
    (folder / "vae").mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    blob = tmp_path / "blobs" / ("0" * 64)
    blob.write_bytes(b"weights")
    (folder / "vae" / "model.safetensors").symlink_to(blob)
    line = f"vae/model.safetensors\0{hashlib.sha256(b'weights').hexdigest()}\n"
    assert hub.fingerprint(folder) == hashlib.sha256(line.encode()).hexdigest()


def _closed_port() -> str:
    """An address on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
