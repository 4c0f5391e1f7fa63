"""Assets: nothing is used whose hash differs, and whatever is missing ends in one line that says how to get it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import fake_hub
import pytest
from click.testing import CliRunner
from fakes import Brightness

from bench import assets
from bench.assets import download
from bench.assets import table as assets_table
from bench.assets.kinds import File, HubModel
from bench.cli import main
from bench.errors import BenchError

SHARED = Path(__file__).parents[4] / "shared" / "data"
CONTENT = b"a line\nanother\n"
REVISION = "0123456789abcdef0123456789abcdef01234567"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


LIST = File(
    "list", "A list", len(CONTENT), "none", False, url="https://example.invalid/x/test.txt", sha256=sha256(CONTENT)
)
HEAD = File("head", "A head", 4, "none", True, url="https://example.invalid/head.pth", sha256=sha256(b"head"))
PREFIX = File(
    "prefix", "A checkpoint", 6, "none", True, url="https://example.invalid/net-7.pth", sha256=sha256(b"a net.")[:8]
)
MODEL = HubModel(
    "model",
    "A model",
    9,
    "none",
    True,
    repo="owner/some-model",
    revision=REVISION,
    files={"config.json": sha256(b"{}"), "part/weights.safetensors": sha256(b"weights")},
)
GATED = HubModel("gated", "A gated model", 9, "none", False, repo="owner/gated", revision=REVISION, files={"w": None})


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A small table, a hub cache that is empty, and no network that a test could reach by mistake."""
    import huggingface_hub.constants

    small = {a.name: a for a in (LIST, HEAD, PREFIX, MODEL, GATED)}
    for place in (assets, assets_table):
        monkeypatch.setattr(place, "TABLE", small)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(download, "RETRIES", 0)
    sends(monkeypatch, ConnectionRefusedError("a test asked for the network"))


def sends(monkeypatch: pytest.MonkeyPatch, answer: bytes | Exception) -> None:
    """Let every download end in ``answer``."""

    def receive(self: download.Resuming, url: str, task: object) -> None:
        if isinstance(answer, Exception):
            raise answer
        self.part.write_bytes(answer)

    monkeypatch.setattr(download.Resuming, "receive", receive)


def one_line(call: Callable[[], object]) -> str:
    with pytest.raises(BenchError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def model_folder(folder: Path) -> Path:
    (folder / "part").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "part" / "weights.safetensors").write_bytes(b"weights")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle that nothing asked for")
    return folder


def test_a_missing_asset_says_how_to_get_it(tmp_path: Path) -> None:
    message = one_line(lambda: assets.path("list", tmp_path))
    assert message.startswith("asset list is missing; run `bench assets fetch list`, or without a network ")
    assert str(tmp_path / "assets" / "list.txt") in message
    assert "asset model is missing; run `bench assets fetch model`" in one_line(lambda: assets.path("model", tmp_path))


def test_a_mistyped_name_ends_in_one_line() -> None:
    assert one_line(lambda: assets.path("lisd")) == "unknown asset 'lisd'; did you mean 'list'?"


def test_a_download_lands_under_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sends(monkeypatch, CONTENT)
    assert assets.fetch("list", tmp_path) == tmp_path / "assets" / "list.txt"
    assert assets.path("list", tmp_path).read_bytes() == CONTENT
    sends(monkeypatch, RuntimeError("what is there is not fetched again"))
    assets.fetch("list", tmp_path)


def test_a_download_with_another_hash_is_refused_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sends(monkeypatch, b"something else")
    message = one_line(lambda: assets.fetch("list", tmp_path))
    assert f"no longer sends the list with SHA-256 {sha256(CONTENT)[:12]}" in message
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("InvalidSchema: Missing dependencies for SOCKS support.", "install the package PySocks for your proxy; "),
        ("InvalidProxyURL: Please check proxy URL.", ""),
        ("InvalidHeader: a header", ""),
        ("ValueError: Invalid IPv6 URL", ""),
    ],
)
def test_what_stops_the_client_is_not_called_another_file(
    error: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    name, _, text = error.partition(": ")
    kind = ValueError if name == "ValueError" else getattr(requests.exceptions, name)
    sends(monkeypatch, kind(text))
    message = one_line(lambda: assets.fetch("list", tmp_path))
    assert "could not be fetched from https://example.invalid/x/test.txt" in message and text[:20] in message
    assert "no longer sends" not in message
    assert f"); {says}without a network" in message


def test_no_network_ends_in_one_line_that_names_the_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    sends(monkeypatch, requests.ConnectionError("no route\nto host"))
    message = one_line(lambda: assets.fetch("list", tmp_path))
    assert "could not be fetched from https://example.invalid/x/test.txt" in message
    assert message.endswith("run `bench assets fetch list --from FOLDER`")


def test_a_folder_is_searched_by_content_whatever_the_name(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    for name, content in (("a/test.txt", b"another set....\n"[: len(CONTENT)]), ("b/test.txt", CONTENT)):
        (disk / name).parent.mkdir(parents=True)
        (disk / name).write_bytes(content)
    assert assets.fetch("list", tmp_path / "cache", disk).read_bytes() == CONTENT


def test_a_folder_with_another_file_of_the_assets_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "list.txt").write_bytes(b"an older edition")
    message = one_line(lambda: assets.fetch("list", tmp_path / "cache", tmp_path / "disk"))
    assert "list.txt is not the asset list: SHA-256 of" in message
    assert message.endswith("nothing was copied")
    assert not (tmp_path / "cache").exists()


def test_a_folder_without_it_and_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    assert "holds no file with the SHA-256 of list" in one_line(
        lambda: assets.fetch("list", tmp_path / "cache", tmp_path / "disk")
    )
    assert one_line(lambda: assets.fetch("list", tmp_path, tmp_path / "nowhere")).endswith("nowhere is not there")


def test_a_copy_that_was_changed_is_refused_until_it_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends(monkeypatch, CONTENT)
    place = assets.fetch("list", tmp_path)
    place.write_bytes(CONTENT + b"one prompt more\n")
    message = one_line(lambda: assets.path("list", tmp_path))
    assert message.startswith("asset list is not what it should be: SHA-256 of")
    assert message.endswith("run `bench assets fetch list`")
    assert assets.fetch("list", tmp_path).read_bytes() == CONTENT


def test_a_hub_model_is_taken_from_the_hubs_own_cache(tmp_path: Path) -> None:
    snapshot = model_folder(tmp_path / "hub" / "models--owner--some-model" / "snapshots" / REVISION)
    assert assets.path("model", tmp_path / "cache") == snapshot
    (snapshot / "part" / "weights.safetensors").write_bytes(b"WEIGHTS")
    assert "weights.safetensors is" in one_line(lambda: assets.path("model", tmp_path / "cache"))
    (snapshot / "part" / "weights.safetensors").unlink()  # an interrupted download is no model
    assert "asset model is missing" in one_line(lambda: assets.path("model", tmp_path / "cache"))


@pytest.mark.parametrize("name", ["", "model", "some-model"])
def test_a_hub_model_is_copied_with_just_its_listed_files(tmp_path: Path, name: str) -> None:
    model_folder(tmp_path / "disk" / name)
    place = assets.fetch("model", tmp_path / "cache", tmp_path / "disk")
    assert place == tmp_path / "cache" / "assets" / "model"
    copied = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert copied == set(MODEL.files)
    assert [path.name for path in place.parent.iterdir()] == ["model"]


def test_a_hub_model_of_other_weights_is_refused(tmp_path: Path) -> None:
    (model_folder(tmp_path / "disk") / "config.json").write_bytes(b"{ }")
    message = one_line(lambda: assets.fetch("model", tmp_path / "cache", tmp_path / "disk"))
    assert "is not the asset model: SHA-256 of" in message
    assert not (tmp_path / "cache").exists()
    (tmp_path / "disk" / "config.json").unlink()
    assert "does not hold the files of owner/some-model: config.json, part/weights.safetensors" in one_line(
        lambda: assets.fetch("model", tmp_path / "cache", tmp_path / "disk")
    )


def test_a_model_without_pinned_hashes_is_not_copied(tmp_path: Path) -> None:
    message = one_line(lambda: assets.fetch("gated", tmp_path, tmp_path))
    assert "gated has no pinned hashes to check a copy by; copy the folder models--owner--gated of another" in message


def test_a_hash_prefix_is_checked_and_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert assets.identity("prefix") == f"sha256 prefix:{sha256(b'a net.')[:8]}"
    sends(monkeypatch, b"a nut.")
    assert "no longer sends the prefix with SHA-256" in one_line(lambda: assets.fetch("prefix", tmp_path))
    assert not PREFIX.home(tmp_path).exists()
    sends(monkeypatch, b"a net.")
    place = assets.fetch("prefix", tmp_path)
    assert place.read_bytes() == b"a net."
    assert assets.state("prefix", tmp_path, hashed=True) == "ok, hash prefix only"
    place.write_bytes(b"a nut.")
    assert assets.state("prefix", tmp_path, hashed=True).startswith("differs: SHA-256 of")
    assert assets.fetch("prefix", tmp_path).read_bytes() == b"a net."


def test_a_hash_prefix_is_found_in_a_folder_by_content_or_by_the_urls_name(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "net-7.pth").write_bytes(b"a nut.")  # a namesake is passed over
    assert "holds no file with the SHA-256 of prefix" in one_line(lambda: assets.fetch("prefix", tmp_path, disk))
    (disk / "renamed").write_bytes(b"a net.")
    assert assets.fetch("prefix", tmp_path, disk).read_bytes() == b"a net."


def test_a_size_that_the_table_only_estimates_does_not_hide_a_file(tmp_path: Path) -> None:
    (tmp_path / "net-7.pth").write_bytes(b"a net.")
    about = dataclasses.replace(PREFIX, size=7)
    about.copy(tmp_path, tmp_path / "cache")
    assert about.home(tmp_path / "cache").read_bytes() == b"a net."


@pytest.mark.parametrize("wrong", ["", "743b7d9", "743B7D99", "f" * 65])
def test_a_pin_that_is_no_hash_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="neither a SHA-256 nor 8 or more of its first digits"):
        dataclasses.replace(PREFIX, sha256=wrong)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_hub.FakeHub]:
    """A hub that holds MODEL, with files that nobody wants, and GATED."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    monkeypatch.undo()  # the downloads of this test are real
    small = {a.name: a for a in (MODEL, GATED)}
    for place in (assets, assets_table):
        monkeypatch.setattr(place, "TABLE", small)
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "PIECE", 2)
    with fake_hub.serve() as running:
        monkeypatch.setattr(fake_hub, "COMMIT", REVISION)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "BENCH_CACHE"):
            monkeypatch.delenv(name, raising=False)
        folder = model_folder(tmp_path / "upload")
        running.models[MODEL.repo] = fake_hub.Model(folder)
        (tmp_path / "gated").mkdir()
        for name in ("w", "large.safetensors"):
            (tmp_path / "gated" / name).write_bytes(b"large")
        running.models[GATED.repo] = fake_hub.Model(tmp_path / "gated", gated=True)
        disable_progress_bars()
        yield running
        enable_progress_bars()


WEIGHTS = f"GET /owner/some-model/resolve/{REVISION}/part/weights.safetensors"


def test_a_hub_model_is_fetched_into_the_hubs_cache_with_just_its_files(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    place = assets.fetch("model", tmp_path / "cache")
    assert place == tmp_path / "hub" / "models--owner--some-model" / "snapshots" / REVISION
    assert {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()} == set(MODEL.files)
    blob = tmp_path / "hub" / "models--owner--some-model" / "blobs" / sha256(b"weights")
    assert (place / "part" / "weights.safetensors").resolve() == blob  # as the hub's client lays them
    assert hub.requests.count(WEIGHTS) == 1
    asked = len(hub.requests)
    assert assets.fetch("model", tmp_path / "cache") == place
    assert len(hub.requests) == asked


def test_a_hub_models_large_file_goes_on_where_it_broke_off(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    hub.cuts = [4, 0]
    assert "asset model could not be fetched" in one_line(lambda: assets.fetch("model", tmp_path / "cache"))
    assert assets.state("model", tmp_path / "cache", hashed=False) == "missing"
    place = assets.fetch("model", tmp_path / "cache")
    assert (place / "part" / "weights.safetensors").read_bytes() == b"weights"
    assert hub.ranges == ["bytes=4-", "bytes=4-"]


@pytest.mark.parametrize("file", MODEL.files)
def test_a_damaged_file_of_a_hub_model_is_fetched_anew(hub: fake_hub.FakeHub, tmp_path: Path, file: str) -> None:
    place = assets.fetch("model", tmp_path / "cache")
    (place / file).resolve().write_bytes(b"damaged")
    assert f"{file} is" in one_line(lambda: assets.path("model", tmp_path / "cache"))
    assert assets.fetch("model", tmp_path / "cache") == place
    (place / file).unlink()
    (place / file).write_bytes(b"no link")  # as on a disk that knows none
    assert assets.fetch("model", tmp_path / "cache") == place


def test_a_hub_that_lists_other_weights_is_not_asked_for_them(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    (hub.models[MODEL.repo].folder / "part" / "weights.safetensors").write_bytes(b"WEIGHTS")
    message = one_line(lambda: assets.fetch("model", tmp_path / "cache"))
    assert message.startswith("owner/some-model/part/weights.safetensors no longer sends the model with SHA-256")
    assert WEIGHTS not in hub.requests


def test_a_gated_model_needs_a_login(hub: fake_hub.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for files in ("w", "large.safetensors"):
        monkeypatch.setitem(assets.TABLE, "gated", dataclasses.replace(GATED, files={files: None}))
        message = one_line(lambda: assets.fetch("gated", tmp_path / "cache"))
        assert "owner/gated is gated: accept its licence on its page on the hub, log in with `hf auth login`" in message
    monkeypatch.setenv("HF_TOKEN", "granted")
    monkeypatch.setitem(assets.TABLE, "gated", dataclasses.replace(GATED, files={"w": None, "large.safetensors": None}))
    place = assets.fetch("gated", tmp_path / "cache")
    assert (place / "large.safetensors").read_bytes() == b"large"
    assert assets.state("gated", tmp_path / "cache", hashed=True) == "ok, by the hub's own hashes"
    (place / "large.safetensors").resolve().write_bytes(b"LARGE")
    assert "large.safetensors is" in assets.state("gated", tmp_path / "cache", hashed=True)


def test_a_hub_that_does_not_answer_ends_in_one_line(
    hub: fake_hub.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    message = one_line(lambda: assets.fetch("model", tmp_path / "cache"))
    assert message.startswith("asset model could not be fetched from https://huggingface.co/owner/some-model/tree/")
    assert message.endswith("without a network, run `bench assets fetch model --from FOLDER`")


def test_a_stand_in_replaces_weights_and_its_identity_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = assets.identity("head")
    assert pinned == f"sha256:{HEAD.sha256}"
    assert assets.identity("model") == f"owner/some-model@{REVISION}"
    other = tmp_path / "tiny.pth"
    other.write_bytes(b"tiny")
    monkeypatch.setenv("BENCH_ASSET_HEAD", str(other))
    assert assets.path("head") == other
    assert assets.identity("head").startswith("stand-in sha256:")
    first = assets.identity("head")
    other.write_bytes(b"tinier")
    assert assets.identity("head") != first
    monkeypatch.setenv("BENCH_ASSET_HEAD", str(tmp_path / "nowhere"))
    assert one_line(lambda: assets.path("head")).endswith("nowhere, which is not there")


def test_a_prompt_set_takes_no_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ASSET_LIST", str(tmp_path))
    assert "BENCH_ASSET_LIST is set, but list has no stand-in" in one_line(lambda: assets.path("list", tmp_path))


def test_the_cache_folder_comes_from_the_environment_or_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENCH_CACHE", raising=False)
    assert assets.cache_folder() == Path("cache")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    sends(monkeypatch, CONTENT)
    assets.fetch("list", tmp_path)
    assert assets.path("list") == tmp_path / "assets" / "list.txt"


def test_the_commands_list_fetch_and_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "elsewhere"))
    run = CliRunner().invoke
    cache = ["--cache", str(tmp_path / "cache")]
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "anything").write_bytes(CONTENT)
    (disk / "weights").write_bytes(b"head")
    (disk / "net").write_bytes(b"a net.")

    listed = run(main, ["assets", "list", *cache])
    assert listed.exit_code == 0
    *each, whole = re.findall(r"^(\w+) +(\w+)", listed.output, re.M)
    assert each == [(name, "missing") for name in assets.TABLE]
    assert whole == ("5", "assets")
    assert listed.output.splitlines()[-1].endswith("; 0.0 kB are here")
    fetched = run(main, ["assets", "fetch", "--from", str(disk), *cache])  # every file, no model
    assert fetched.exit_code == 0, fetched.output
    assert run(main, ["assets", "verify", *cache]).exit_code == 0
    assert run(main, ["assets", "verify", "model", *cache]).exit_code == 1
    (tmp_path / "cache" / "assets" / "head.pth").write_bytes(b"HEAD")
    verified = run(main, ["assets", "verify", *cache])
    assert verified.exit_code == 1
    assert "not as they should be: head; run `bench assets fetch head`" in verified.output
    assert os.environ["BENCH_CACHE"] == str(tmp_path / "elsewhere")


def test_all_that_a_suite_needs_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite is not built without its prompts, so those come first."""
    from bench import registry

    def build() -> Mock:
        assets.path("list")
        assets.path("prefix")
        return Mock(metrics=lambda: [("one", None), ("two", None)])

    plugins = {"suite": build, "one": Mock(assets=("head",)), "two": Mock(assets=("head", "prefix"))}
    monkeypatch.setattr(registry, "load", lambda kind, name: plugins[name])
    disk, cache = tmp_path / "disk", tmp_path / "cache"
    disk.mkdir()
    for i, content in enumerate((CONTENT, b"head", b"a net.")):
        (disk / str(i)).write_bytes(content)
    command = ["assets", "fetch", "--suite", "suite", "--from", str(disk), "--cache", str(cache)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert [line.partition(":")[0] for line in result.output.splitlines()] == ["list", "prefix", "head"]
    assert not {"model", "gated"} & {path.name for path in (cache / "assets").iterdir()}


def test_one_asset_that_cannot_be_had_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "head.pth").write_bytes(b"head")
    result = CliRunner().invoke(
        main, ["assets", "fetch", "--from", str(tmp_path / "disk"), "--cache", str(tmp_path / "cache")]
    )
    assert result.exit_code == 1
    assert "holds no file with the SHA-256 of list" in result.output
    assert (tmp_path / "cache" / "assets" / "head.pth").exists()


class TestTheRealTable:
    @pytest.fixture(autouse=True)
    def table(self) -> None:
        """The real one."""

    def test_everything_is_pinned(self) -> None:
        for name, asset in assets.TABLE.items():
            assert asset.name == name
            assert asset.licence and asset.size > 0
            pinned = re.search(r"/[0-9a-f]{40}(/|$)", asset.source)
            assert pinned or (isinstance(asset, File) and asset.sha256[:8] in asset.url), f"{name} comes from a branch"
            if isinstance(asset, HubModel):
                assert all(re.fullmatch("[0-9a-f]{64}", sha) for sha in asset.files.values() if sha is not None)
            elif len(asset.sha256) < 64:
                assert asset.sha256 in asset.url, f"{name} is pinned by less than its source publishes"

    def test_the_docs_name_every_asset(self) -> None:
        page = (Path(__file__).parents[3] / "docs" / "assets.md").read_text()
        table = page.partition("| asset |")[2].partition("\n\n")[0]
        rows = [line.split(" | ")[0] for line in table.splitlines()]
        assert [name for row in rows for name in re.findall("`(.+?)`", row)] == list(assets.TABLE)

    @pytest.mark.skipif(not SHARED.is_dir(), reason="the copies of the prompt files are not beside this checkout")
    def test_the_table_fits_the_real_files(self, tmp_path: Path) -> None:
        for name in ("drawbench_prompts", "geneval_prompts", "geneval_classes", "ocr_prompts", "aesthetic_head"):
            assert assets.fetch(name, tmp_path, SHARED).stat().st_size == assets.TABLE[name].size


def test_a_model_without_hashes_is_brought_in_the_way_that_works(tmp_path: Path) -> None:
    made = dataclasses.replace(MODEL, files=dict.fromkeys(MODEL.files))
    assert "models--owner--some-model of another machine's hub cache" in made.by_hand
    with pytest.raises(BenchError, match="no pinned hashes") as caught:
        made.copy(tmp_path, tmp_path / "cache")
    assert str(caught.value).endswith(made.by_hand)
    assert MODEL.by_hand == "run `bench assets fetch model --from FOLDER`"


def test_scores_of_a_stand_in_have_a_name_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Corpus scores in the cache are known by it, and nobody may take them for the pinned model's."""

    class Judge(Brightness):
        name, version, assets = "judge", 3, ("head",)

    assert Judge().edition() == "judge-v3"
    other = tmp_path / "tiny.pth"
    other.write_bytes(b"tiny")
    monkeypatch.setenv("BENCH_ASSET_HEAD", str(other))
    first = Judge().edition()
    other.write_bytes(b"tinier")
    assert first.startswith("judge-v3-") and Judge().edition() not in (first, "judge-v3")
