"""What a job leaves is loaded back by diffusers and PEFT as it was trained, and its card says what the records say."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from fake_run import FakeRun
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from trained import adapted, transformer, velocity

from bench.backbone import hub, loader
from bench.backbone.source import Source
from bench.backbone.weights import LORA, save_weights
from bench.cli import main
from bench.errors import BenchError
from bench.export import folder
from bench.export.folder import export_job
from bench.export.model_card import write_card
from bench.report import tables
from bench.report.study import read_study
from bench.sampling import levels

CONFIG = {"lr": 1e-5, "batch_size": 32, "target_modules": ["attn.to_q"]}
HOSTILE = "<script>alert(1)</script> [x](javascript:y) ![i](//e.vil/p) `code` **bold** __strong__ | $e$\n---\n# head"


def load(folder: Path, **parts: Any) -> Any:
    from diffusers import StableDiffusion3Pipeline

    return StableDiffusion3Pipeline.from_pretrained(folder, **parts)


@pytest.fixture
def run(tmp_path: Path, tiny_pipeline: Path) -> FakeRun:
    """A run of two finished jobs, full and LoRA, that were trained from the tiny pipeline."""
    fake = FakeRun(tmp_path / "demo", per_group=2, repeats=1, signs=2)
    fake.experiment |= {"backbone": "tiny", "backbone_hash": hub.fingerprint(tiny_pipeline)}
    fake.experiment["suite"]["sampler"] = {"steps": 2, "guidance_scale": 3.0, "resolution": 16}
    fake.experiment |= {"max_sequence_length": 12, "resolution": 16}
    fake.write("config.json", {"backbone": str(tiny_pipeline), "revision": None})
    fake.base()
    fake.job("full", 0.1, config=CONFIG)
    fake.job("lora", 0.2, config=CONFIG, reward="style", share=0.9)
    transformer(tiny_pipeline, 0.02).save_pretrained(fake.folder / "full--pretty--s0" / "weights" / "transformer")
    save_weights(adapted(tiny_pipeline), fake.folder / "lora--pretty--s0" / "weights")
    return fake


@pytest.fixture
def full(run: FakeRun) -> Path:
    return run.folder / "full--pretty--s0"


@pytest.fixture
def lora(run: FakeRun) -> Path:
    return run.folder / "lora--pretty--s0"


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# -- weights ---------------------------------------------------------------------------------------------------------


def test_a_full_fine_tune_is_a_pipeline_with_the_trained_transformer(
    full: Path, tiny_pipeline: Path, tmp_path: Path
) -> None:
    export_job(full, tmp_path / "out")
    pipeline = load(tmp_path / "out")
    assert torch.equal(velocity(pipeline.transformer), velocity(transformer(tiny_pipeline, 0.02)))
    assert not torch.equal(velocity(pipeline.transformer), velocity(transformer(tiny_pipeline)))
    assert files(tmp_path / "out") == files(tiny_pipeline) | {"README.md"}
    original = load(tiny_pipeline)
    for part in ("vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
        pairs = zip(getattr(pipeline, part).parameters(), getattr(original, part).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("whole", [False, True])
def test_shards_stay_shards(full: Path, tiny_pipeline: Path, tmp_path: Path, whole: bool) -> None:
    model = transformer(tiny_pipeline, 0.03)
    shutil.rmtree(full / "weights")
    if whole:
        save_weights(model, full / "weights")
    else:
        model.save_pretrained(full / "weights" / "transformer", max_shard_size="40KB")
    export_job(full, tmp_path / "out")
    shards = list((tmp_path / "out" / "transformer").glob("*.safetensors"))
    assert len(shards) == 1 if whole else len(shards) > 2
    assert torch.equal(velocity(load(tmp_path / "out").transformer), velocity(model))


def test_weights_that_are_spread_over_ranks_come_as_a_state(full: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    model, bare = transformer(tiny_pipeline, 0.04), transformer(tiny_pipeline)
    shutil.rmtree(full / "weights")
    save_weights(bare, full / "weights", model.state_dict())
    export_job(full, tmp_path / "out", transformer_only=True)
    assert torch.equal(velocity(transformer(tmp_path / "out")), velocity(model))


def test_weights_are_linked_and_configs_copied(full: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    said: list[str] = []
    export_job(full, tmp_path / "out", say=said.append)
    shared = {path for path in files(tiny_pipeline) if (tmp_path / "out" / path).samefile(tiny_pipeline / path)}
    assert shared == {path for path in files(tiny_pipeline) if path.endswith(".safetensors")} - {
        "transformer/diffusion_pytorch_model.safetensors"
    }
    (line,) = (line for line in said if line.startswith("text_encoder_3:"))
    assert re.fullmatch(r"text_encoder_3: 1 file copied and 1 file hard-linked \([\d.]+ KiB\)", line)


def test_on_another_disk_weights_are_copied(
    full: Path, tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Any, target: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    said: list[str] = []
    export_job(full, tmp_path / "out", say=said.append)
    assert not (tmp_path / "out/vae/diffusion_pytorch_model.safetensors").samefile(
        tiny_pipeline / "vae/diffusion_pytorch_model.safetensors"
    )
    assert not any("hard-linked" in line for line in said)
    assert torch.equal(velocity(load(tmp_path / "out").transformer), velocity(transformer(tiny_pipeline, 0.02)))
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(BenchError, match="does not fit on the disk"):
        export_job(full, tmp_path / "full-disk")
    assert not (tmp_path / "full-disk").exists() and not list(tmp_path.glob(".*.partial"))


def test_a_snapshot_of_the_hub_is_followed_to_its_files(full: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    for number, path in enumerate(sorted(files(tiny_pipeline))):
        blob = tmp_path / "models--a--b" / "blobs" / str(number)
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tiny_pipeline / path, blob)
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).symlink_to(blob)
    export_job(full, tmp_path / "out", backbone=str(snapshot))
    shutil.rmtree(tmp_path / "models--a--b")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]
    load(tmp_path / "out")


def test_a_lora_is_loaded_by_diffusers_and_by_peft(lora: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    export_job(lora, tmp_path / "out")
    assert files(tmp_path / "out") == {LORA, "adapter_config.json", "adapter_model.safetensors", "README.md"}
    expected = velocity(adapted(tiny_pipeline))
    pipeline = load(tiny_pipeline)
    pipeline.load_lora_weights(str(tmp_path / "out"))
    assert torch.equal(velocity(pipeline.transformer), expected)
    peft = PeftModel.from_pretrained(transformer(tiny_pipeline), tmp_path / "out")
    torch.testing.assert_close(velocity(peft), expected)


def test_an_adapter_has_the_same_bytes_every_time(tiny_pipeline: Path, tmp_path: Path) -> None:
    save_weights(adapted(tiny_pipeline), tmp_path)
    text = (tmp_path / LORA).read_bytes()[:20_000].decode(errors="ignore")
    assert r"\"attn.to_out.0\", \"attn.to_q\"" in text  # a set's order differs from process to process
    assert '"format"' not in text  # of two entries the file would keep no fixed order


def test_the_transformer_alone(full: Path, tmp_path: Path) -> None:
    shutil.rmtree(full.parent / "base" / "evaluations")  # a job can be finished before its base is evaluated
    export_job(full, tmp_path / "out", transformer_only=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "transformer"}
    (tmp_path / "empty").mkdir()
    export_job(full, tmp_path / "empty", transformer_only=True)
    assert files(tmp_path / "empty") == files(tmp_path / "out")


# -- errors ----------------------------------------------------------------------------------------------------------


def status(job: Path, status: str, reason: str | None = None) -> None:
    (job / "status.json").write_text(json.dumps({"v": 1, "status": status, "reason": reason}))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 8)


def without_metadata(job: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file(load_file(job / "weights" / LORA), job / "weights" / LORA)


WRONG: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "job": ("ful--pretty--s0", lambda job: None, "unknown job 'ful--pretty--s0'; did you mean 'full--pretty--s0'"),
    "experiment": (".", lambda job: None, "is an experiment; name one of its jobs, e.g. .*full--pretty--s0"),
    "elsewhere": ("full--pretty--s0/weights", lambda job: None, "is no job of an experiment"),
    "base": ("base", lambda job: None, "base was not trained"),
    "context": ("context--flux", lambda job: None, "context--flux was not trained"),
    "interrupted": (
        "full--pretty--s0",
        lambda job: status(job, "interrupted", "stopped by the user"),
        r"is not finished \(interrupted: stopped by the user\); the same `bench run`",
    ),
    "new": ("full--pretty--s0", lambda job: (job / "status.json").unlink(), r"is not finished \(not begun\)"),
    "no weights": ("full--pretty--s0", lambda job: shutil.rmtree(job / "weights"), "holds no weights"),
    "no shard": (
        "full--pretty--s0",
        lambda job: (job / "weights/transformer/diffusion_pytorch_model.safetensors").unlink(),
        "holds no .*safetensors",
    ),
    "cut short": (
        "full--pretty--s0",
        lambda job: cut(job / "weights/transformer/diffusion_pytorch_model.safetensors"),
        "model.safetensors is damaged",
    ),
    "cut adapter": ("lora--pretty--s0", lambda job: cut(job / "weights" / LORA), "lora_weights.* is damaged"),
    "no alpha": ("lora--pretty--s0", without_metadata, "does not say its rank and alpha"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_exported_ends_in_one_line(run: FakeRun, tmp_path: Path, case: str) -> None:
    name, spoil, says = WRONG[case]
    spoil(run.folder / name)
    done = CliRunner().invoke(main, ["export", str(run.folder / name), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    *_, line = done.output.splitlines()
    assert line.startswith("bench: ") and re.search(says, line)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*.partial"))


def rewritten(file: str, change: Callable[[Any], Any]) -> Callable[[Path], Any]:
    def rewrite(job: Path) -> None:
        path = job / file
        path.write_text(json.dumps(change(json.loads(path.read_text()) if path.exists() else None)))

    return rewrite


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda record: {name: value for name, value in record.items() if name != key}


def with_metadata(text: str) -> Callable[[Path], Any]:
    def rewrite(job: Path) -> None:
        from safetensors.torch import load_file, save_file

        save_file(load_file(job / "weights" / LORA), job / "weights" / LORA, {"lora_adapter_metadata": text})

    return rewrite


INDEX = "weights/transformer/diffusion_pytorch_model.safetensors.index.json"
LACKING: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "experiment a list": ("full", rewritten("../experiment.json", lambda record: []), "experiment.json"),
    "experiment without its jobs": ("full", rewritten("../experiment.json", without("jobs")), "experiment.json.*jobs"),
    "without its suite": ("full", rewritten("../experiment.json", without("suite")), "experiment.json.*suite"),
    "config a list": ("full", rewritten("../config.json", lambda record: []), "config.json is not a record"),
    "job without its config": ("full", rewritten("job.json", without("config")), "job.json.*config"),
    "job a list": ("full", rewritten("job.json", lambda record: []), "job.json"),
    "no status": ("full", rewritten("status.json", without("status")), "status.json.*status"),
    "index a list": ("full", rewritten(INDEX, lambda record: []), "index.json is damaged"),
    "index without its map": ("full", rewritten(INDEX, lambda record: {}), "index.json is damaged"),
    "adapter's configuration no JSON": ("lora", with_metadata("{"), f"{LORA} is damaged"),
    "adapter's configuration a list": ("lora", with_metadata("[]"), f"{LORA} is damaged"),
    "adapter's configuration strange": ("lora", with_metadata('{"transformer.no_key": 1}'), "peft does not read"),
    "record of weights a list": ("full", rewritten("weights.json", lambda record: []), "weights.json is damaged"),
    "record of weights elsewhere": (
        "full",
        rewritten("weights.json", lambda record: {"files": {"../job.json": ""}}),
        "weights.json is damaged",
    ),
    "weights of another time": (
        "full",
        rewritten("weights.json", lambda record: {"files": {"transformer/config.json": "0" * 64}}),
        "transformer/config.json is damaged",
    ),
}


@pytest.mark.parametrize("case", LACKING)
def test_a_record_that_lacks_something_ends_in_one_line(run: FakeRun, tmp_path: Path, case: str) -> None:
    name, spoil, says = LACKING[case]
    job = run.folder / f"{name}--pretty--s0"
    spoil(job)
    with pytest.raises(BenchError, match=says) as caught:
        export_job(job, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*.partial"))


KILLED = """
import os, signal, sys
from pathlib import Path

from bench.export.folder import export_job

job, out, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
moves = 0


def killing(move):
    def moved(self, target):
        global moves
        moves += 1
        if moves == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return move(self, target)
    return moved


Path.rename, Path.replace = killing(Path.rename), killing(Path.replace)
export_job(job, out)
"""


@pytest.mark.parametrize("last", [1, 2])
def test_an_export_that_was_killed_is_made_by_the_same_command(full: Path, tmp_path: Path, last: int) -> None:
    """Killed at the first move of what it made, or at the second if it needs one."""
    export_job(full, tmp_path / "whole")
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, full, out, str(last)], check=False)
    assert done.returncode == (-signal.SIGKILL if last == 1 else 0)
    assert out.exists() == (last == 2)
    if last == 1:
        export_job(full, out)
    assert files(out) == files(tmp_path / "whole")
    assert all((out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in files(out))
    assert not list(tmp_path.glob(".*.partial"))


def test_a_lost_shard_is_named(full: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    shutil.rmtree(full / "weights")
    transformer(tiny_pipeline).save_pretrained(full / "weights" / "transformer", max_shard_size="40KB")
    lost = next((full / "weights" / "transformer").glob("*-00002-of-*"))
    lost.unlink()
    with pytest.raises(BenchError, match=f"{lost.name} is not there"):
        export_job(full, tmp_path / "out")


@pytest.mark.parametrize(
    ("part", "tensor"),
    [
        ("text_encoder", "text_model.final_layer_norm.weight"),
        ("text_encoder_3", "encoder.final_layer_norm.weight"),
        ("vae", "decoder.conv_in.weight"),
        ("transformer", "proj_out.weight"),
    ],
)
def test_what_is_not_all_there_is_not_passed_on(
    run: FakeRun, full: Path, tiny_pipeline: Path, tmp_path: Path, part: str, tensor: str
) -> None:
    from safetensors.torch import load_file, save_file

    mine = Path(shutil.copytree(tiny_pipeline, tmp_path / "mine"))
    folder = full / "weights" if part == "transformer" else mine
    (file,) = (folder / part).glob("*.safetensors")
    save_file({key: value for key, value in load_file(file).items() if key != tensor}, file, {"format": "pt"})
    run.write("config.json", {"backbone": str(mine)})
    run.experiment["backbone_hash"] = hub.fingerprint(mine)  # the job was trained so
    run.save()
    with pytest.raises(BenchError, match=f"the weights of .*/{part} lack {tensor};"):
        export_job(full, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_not_touched(full: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "mine.txt"):
        with pytest.raises(BenchError, match="is not an empty folder"):
            export_job(full, out)
    assert files(tmp_path / "out") == {"mine.txt"}


def test_a_backbone_that_moved_is_asked_for(run: FakeRun, full: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    run.write("config.json", {"backbone": str(tmp_path / "gone")})
    with pytest.raises(BenchError, match=r"gone is not where it was .* --backbone") as caught:
        export_job(full, tmp_path / "out")
    assert "\n" not in str(caught.value)
    export_job(full, tmp_path / "alone", transformer_only=True)  # needs no backbone
    export_job(run.folder / "lora--pretty--s0", tmp_path / "lora")
    export_job(full, tmp_path / "out", backbone=str(tiny_pipeline))
    load(tmp_path / "out")


def test_another_backbone_is_refused(full: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_pipeline, tmp_path / "other")
    path = tmp_path / "other" / "vae" / "config.json"
    path.write_text(path.read_text().replace("1.5", "1.6"))
    with pytest.raises(BenchError, match="is not the backbone that was trained"):
        export_job(full, tmp_path / "out", backbone=str(tmp_path / "other"))
    with pytest.raises(BenchError, match="is not the backbone that was trained"):  # its terms are other ones, too
        export_job(full, tmp_path / "out", backbone=str(tmp_path / "other"), transformer_only=True)
    with pytest.raises(BenchError, match="no folder"):
        export_job(full, tmp_path / "out", backbone=str(tmp_path / "nowhere"))


# -- the card --------------------------------------------------------------------------------------------------------


def card_of(folder: Path) -> ModelCard:
    """The card, its front matter parsed and checked as the hub's client does before an upload."""
    return ModelCard((folder / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=False)


def test_the_front_matter_is_what_the_hub_takes(lora: Path, full: Path, tmp_path: Path) -> None:
    export_job(lora, tmp_path / "out")
    data = card_of(tmp_path / "out").data
    assert (data.library_name, data.pipeline_tag) == ("diffusers", "text-to-image")
    assert {"lora", "text-to-image"} <= set(data.tags)
    assert data.base_model is None  # a path of this machine says nothing to others
    assert data.model_name == "demo: lora--pretty--s0"
    export_job(full, tmp_path / "full")
    assert "lora" not in card_of(tmp_path / "full").data.tags


@pytest.mark.parametrize("name", ["stabilityai/stable-diffusion-3.5-medium", "tiny-sd3"])
def test_the_base_model_is_an_id(run: FakeRun, lora: Path, name: str) -> None:
    run.experiment["backbone"] = name
    run.save()
    run.write("config.json", {"backbone": name, "revision": "abc"})
    card = card_of(write_card(lora).parent)
    assert card.data.base_model == name
    assert card.data.base_model_relation == "adapter"
    assert f"Backbone | {name}, revision abc" in card.text


def test_the_values_are_those_of_the_report(run: FakeRun, tmp_path: Path) -> None:
    study = read_study([run.folder])
    sections = tables.main_sections(study)
    numbers = {row["method"]: row for row in csv.DictReader(io.StringIO(tables.main_csv(study, sections)))}
    markdown = tables.main_markdown(study, sections).replace("*", "")
    for job in ("full", "lora"):
        card = card_of(write_card(run.folder / f"{job}--pretty--s0").parent)
        values = {result.metric_type: result.metric_value for result in card.data.eval_results}
        assert values == {m.name: float(numbers[job][f"{m.name}_mean"]) for m in study.metrics}
        (row,) = (line for line in markdown.splitlines() if line.startswith(f"| {job} |"))
        shown = [cells(line)[3] for line in card.text.splitlines() if "| scenes |" in line or "| signs |" in line]
        assert shown == cells(row)[3:]
        change = float(numbers[job]["geneval_minus_base"])
        assert f"| {change:+.3f} [" in card.text


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_card_says_what_the_records_say(run: FakeRun, lora: Path) -> None:
    text = card_of(write_card(lora).parent).text
    body = text.lstrip("\n").splitlines()
    assert body[0].startswith("> **Rendered shapes &amp; tiny-sd3")
    for fact in (
        "ab" * 32,
        "1,234",
        "flops=1e+12",
        "9.00e11",
        "90.0 % ‡",
        "f" * 40,
        "2.13.0",
        "Seed | 0",
        "world",
        "Resolution | 16 px",
    ):
        assert fact in text
    (block,) = re.findall(r"```json\n(.*?)```", text, re.S)
    assert json.loads(block) == CONFIG
    assert "Training reward | Aesthetic †" in text and "† The model was trained on this metric" in text
    assert re.search(r"\| Aesthetic ↑ \| scenes \| 12 \| .* † \|", text)
    assert "2 sampling steps, guidance 3, 16 px" in text
    assert "states no licence" in text
    reward = [r for r in card_of(lora).data.eval_results if "reward" in r.metric_name]
    assert [r.metric_type for r in reward] == ["style"]


def test_marks_that_do_not_occur_are_not_explained(full: Path) -> None:
    text = write_card(full).read_text()
    assert "†" not in text and "‡" not in text and "Training reward | none" in text


def test_a_suite_of_no_embedded_world_has_no_notice(run: FakeRun, full: Path) -> None:
    run.experiment["notice"] = ""
    run.save()
    assert card_of(write_card(full).parent).text.lstrip("\n").startswith("# demo: full--pretty--s0")


def test_the_same_records_give_the_same_card(full: Path) -> None:
    first = write_card(full).read_bytes()
    assert write_card(full).read_bytes() == first
    shutil.rmtree(full / "weights")
    with pytest.raises(BenchError, match="holds no weights"):
        write_card(full)


def test_the_licence_is_the_backbones(
    run: FakeRun, full: Path, lora: Path, tiny_pipeline: Path, tmp_path: Path
) -> None:
    home = tmp_path / "backbone"
    shutil.copytree(tiny_pipeline, home)
    (home / "README.md").write_text(
        "---\nlicense: other\nlicense_name: community\nlicense_link: LICENSE.md\n---\n# A model\n"
    )
    (home / "LICENSE.md").write_text("Terms.")
    run.write("config.json", {"backbone": str(home)})
    for job in (full, lora):
        export_job(job, tmp_path / job.name)
        card = card_of(tmp_path / job.name)
        assert (card.data.license, card.data.license_name, card.data.license_link) == (
            "other",
            "community",
            "LICENSE.md",
        )
        assert (tmp_path / job.name / "LICENSE.md").read_text() == "Terms."
    (home / "README.md").write_text("---\nlicense: [broken\n---\n")
    assert card_of(write_card(full).parent).data.license is None


def test_a_licence_on_the_hub_is_linked_there(tmp_path: Path) -> None:
    from bench.export.model_card import licence

    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_link: LICENSE.md\n---\n")
    assert licence(tmp_path, Source("some/model", "v1"))["license_link"] == (
        "https://huggingface.co/some/model/blob/v1/LICENSE.md"
    )


def test_names_and_prompts_are_text(run: FakeRun, lora: Path) -> None:
    run.experiment |= {"corpus": HOSTILE, "notice": HOSTILE, "backbone": HOSTILE}
    run.experiment["suite"]["metrics"][0]["label"] = HOSTILE
    run.save()
    record = json.loads((lora / "job.json").read_text())
    record["traits"]["paper"] = HOSTILE
    record["config"] = {"```": "```\n</code><script>alert(2)</script>"}
    record["versions"]["torch"] = HOSTILE
    (lora / "job.json").write_text(json.dumps(record))
    for path in lora.glob("evaluations/*/samples.jsonl"):
        path.write_text(path.read_text().replace("a photo of", "```\\n<script>' + \\u2028"))
    card = card_of(write_card(lora).parent)
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(card.text)
    for tag in ("<script", "<a ", "<img", "<code>code", "<em>"):
        assert tag not in html, tag
    assert html.count("<strong>") == 1  # the notice, which is bold by our own hand
    assert html.count("<h1>") == 1 and html.count("<pre>") == 2 and html.count("<table>") == 4
    shown = re.sub(r"\s+", " ", HOSTILE).replace("<", "&lt;").replace(">", "&gt;")
    assert html.count(shown) >= 6
    (name,) = [r.metric_name for r in card.data.eval_results if r.metric_type == "geneval"]
    assert name == HOSTILE


@pytest.mark.parametrize("form", ["pipeline", "transformer", "lora", "job-full", "job-lora"])
def test_the_code_on_the_card_works(
    full: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    job, folder = lora if form.endswith("lora") else full, tmp_path / "out"
    if form.startswith("job"):
        folder = write_card(job).parent
    else:
        export_job(job, folder, transformer_only=form == "transformer")
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["image"].size == (16, 16) and (folder / "picture.png").exists()
    expected = adapted(load_home(full)) if job == lora else transformer(load_home(full), 0.02)
    assert torch.equal(velocity(names["pipeline"].transformer), velocity(expected))


@pytest.mark.parametrize("name", levels.GRIDS)
def test_the_code_on_the_card_draws_at_the_suites_levels(
    run: FakeRun, full: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run.experiment["suite"]["sampler"] |= {"steps": 5, "levels": name}
    run.save()
    (code,) = re.findall(r"```python\n(.*?)```", write_card(full).read_text(), re.S)
    monkeypatch.chdir(full)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    visited = names["pipeline"].scheduler.sigmas.tolist()
    assert visited == pytest.approx(levels.sigmas(name, 5, 3.0).tolist(), rel=1e-6)


def load_home(job: Path) -> Path:
    return Path(json.loads((job.parent / "config.json").read_text())["backbone"])


def test_a_registered_backbone_is_found_through_the_loader(run: FakeRun, lora: Path) -> None:
    run.write("config.json", {"backbone": "tiny-sd3"})
    (code,) = re.findall(r"```python\n(.*?)```", write_card(lora).read_text(), re.S)
    assert "from bench.backbone import loader\n" in code and "max_sequence_length=12" in code
    (place,) = re.findall(r"from_pretrained\((.*)\)", code)
    assert (eval(place, {"loader": loader}) / "model_index.json").is_file()


def test_the_command_says_what_it_does(full: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["export", str(full), "--out", str(tmp_path / "a" / "out")])
    assert done.exit_code == 0, done.output
    assert "hard-linked" in done.output and done.output.endswith(f"export: {tmp_path / 'a' / 'out'}\n")
