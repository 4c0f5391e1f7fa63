"""The stages one after another, shortened: what each leaves is what the next and the loader read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from bench.backbone.loader import Backbone, BackboneSpec
from bench.backbone.pretrain import recipes
from bench.cli.main import main


def bench(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["pretrain", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "PAIRS", 256)
    monkeypatch.setattr(torch, "compile", lambda module: module)  # minutes


def test_the_policy_asks_for_its_vae(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["pretrain", "--stage", "policy", "--out", str(tmp_path), "--steps", "1"])
    assert result.exit_code == 1 and "is not there; run `bench pretrain --stage vae` first" in result.output
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_the_stages_leave_a_pipeline_and_a_judge(tmp_path: Path) -> None:
    for stage in ("vae", "clip", "policy"):
        assert "'step': 2" in bench("--stage", stage, "--out", str(tmp_path), "--steps", "2")
        assert "'step'" not in bench("--stage", stage, "--out", str(tmp_path), "--steps", "2")  # it is over
    result = CliRunner().invoke(main, ["pretrain", "--stage", "policy", "--out", str(tmp_path), "--steps", "3"])
    assert result.exit_code == 1 and "policy/state.pt is of a training with another steps" in result.output
    folder = tmp_path / "tiny_sd3"
    backbone = Backbone(BackboneSpec("new", str(folder), 12, 64, "embedded"))
    assert backbone.encode_prompts(["a red circle"]).prompt_embeds.shape == (1, 24, 128)
    assert json.loads((folder / "token_ids.json").read_text()).keys() == {"tokenizer", "tokenizer_3"}
    assert (folder / "vae" / "training_log.jsonl").exists() and (folder / "transformer" / "training_log.jsonl").exists()
    assert not list(folder.rglob("*.pt")) and not list((tmp_path / "clip").glob("*.pt"))
    assert str(tmp_path) not in (folder / "vae" / "config.json").read_text()
