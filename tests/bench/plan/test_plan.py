"""Plans against pencil and paper, and what a dry run says and leaves alone."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from fakes import Growing, NaNLoss
from prompt_files import make_prompt_files

from bench import assets, registry
from bench.backbone import hub
from bench.cli import main
from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig, method_config, read_experiment
from bench.experiment.run import Workspace
from bench.experiment.tuned import Tuned, prompt_key, to_toml
from bench.flops import transformer_cost
from bench.method import MethodConfig, Needs, PostTrainingMethod
from bench.plan import disk, machine, memory, plan_experiment, probe, show, work
from bench.plan.architecture import SD3_CLIP_TOKENS, SD3_VAE, SD35_LARGE, SD35_MEDIUM, Architecture, find
from bench.plan.estimates import Assumptions, ExperimentPlan, JobPlan

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
PAPER = ("main", "ablation", "dynamics_aesthetic", "dynamics_clipscore", "qualitative")
IMAGE, TEXT = (512 // 8 // 2) ** 2, 77 + 256  # tokens at 512 px


def architecture(transformer: dict[str, Any] = SD35_MEDIUM, resolution: int = 512, length: int = 256) -> Architecture:
    return Architecture(
        "it", None, "", transformer, SD3_VAE, SD3_CLIP_TOKENS, length, resolution, "full", text_parameters=0
    )


TINY = architecture(probe.TINY | dict(in_channels=16, out_channels=16, pos_embed_max_size=32), resolution=128, length=3)


def small(name: str, **settings: Any) -> PostTrainingMethod:
    method = registry.load("methods", name)
    made: PostTrainingMethod = method(method_config(method, "full", settings))
    return made


@pytest.fixture(scope="module")
def absent() -> Any:
    """Neither the paper's backbone nor a network."""
    with pytest.MonkeyPatch.context() as patch:

        def resolve(name: str, **asked: Any) -> Path:
            if Path(name).is_dir():
                return Path(name)
            raise BenchError(f"{name} is not in the cache")

        def connect(*place: Any) -> None:
            raise AssertionError(f"a dry run asked the network for {place}")

        patch.setattr(hub, "resolve", resolve)
        patch.setattr(socket.socket, "connect", connect)
        patch.setenv("BENCH_CACHE", "/nowhere")
        yield


@pytest.fixture(scope="module")
def paper_main(absent: Any, tmp_path_factory: pytest.TempPathFactory) -> ExperimentPlan:
    place = tmp_path_factory.mktemp("plan")
    config = read_experiment(EXPERIMENTS / "paper_main.toml", {})
    plan = plan_experiment(config, Workspace(place / "cache", place / "runs"), Assumptions())
    assert not any(place.iterdir())
    return plan


# -- the model --------------------------------------------------------------------------------------------------------


def forward_by_hand(config: dict[str, Any]) -> int:
    """FLOPs of every linear layer and both products of attention of an SD3 transformer, at 512 px."""
    w, layers = config["num_attention_heads"] * config["attention_head_dim"], config["num_layers"]

    def linear(tokens: int, inputs: int, outputs: int) -> int:
        return 2 * tokens * inputs * outputs

    def attention(tokens: int) -> int:
        return 2 * 2 * tokens * tokens * w

    total = linear(IMAGE, 2 * 2 * 16, w) + linear(TEXT, 4096, w)
    total += linear(1, 256, w) + linear(1, 2048, w) + 2 * linear(1, w, w)
    for i in range(layers):
        last, dual = i == layers - 1, i in config["dual_attention_layers"]
        total += linear(1, w, (9 if dual else 6) * w) + linear(1, w, (2 if last else 6) * w)
        total += 4 * linear(IMAGE, w, w) + (3 if last else 4) * linear(TEXT, w, w) + attention(IMAGE + TEXT)
        total += 2 * linear(IMAGE, w, 4 * w) + (0 if last else 2 * linear(TEXT, w, 4 * w))
        total += 4 * linear(IMAGE, w, w) + attention(IMAGE) if dual else 0
    return total + linear(1, w, 2 * w) + linear(IMAGE, w, 2 * 2 * 16)


@pytest.mark.parametrize(("config", "parameters"), [(SD35_MEDIUM, 2.243e9), (SD35_LARGE, 8.06e9)])
def test_the_public_configs_make_the_published_sizes(config, parameters):
    model = architecture(config).empty_transformer()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=1e-3)
    assert all(p.device.type == "meta" for p in model.parameters())


def test_a_forward_of_sd35_medium_is_counted_as_on_paper():
    it = architecture()
    model = it.empty_transformer().requires_grad_(False)
    forward = transformer_cost(model, it.latent_shape(), it.text_tokens).forward
    assert forward == forward_by_hand(SD35_MEDIUM)
    assert forward == pytest.approx(2.44e12, rel=2e-3)


def test_the_paper_s_runs_cost_what_they_cost_on_paper(paper_main):
    sft, soar = paper_main.jobs
    assert (sft.name, soar.name) == ("sft--all--s0", "soar--all--s0")
    assert (sft.steps, sft.updates, soar.steps) == (10_000, 10_000, 10_000)
    sample = forward_by_hand(SD35_MEDIUM) * 3  # but for the gradients of the first layers' inputs, which are data
    assert sft.flops == pytest.approx(10_000 * 512 * sample, rel=2e-3)
    # 1 with a graph and 1 without for the pair and its rollout (the conditional branch is the base's forward), 6 with.
    assert soar.flops / sft.flops == pytest.approx((7 * 3 + 1) / 3, rel=1e-3)
    assert Assumptions().hours(sft.flops) == pytest.approx(23.4, abs=0.1)
    assert Assumptions(peak=790e12).hours(sft.flops) == pytest.approx(29.3, abs=0.1)
    assert Assumptions(utilisation=0.9).hours(sft.flops) == pytest.approx(11.7, abs=0.1)


def test_an_evaluation_on_the_paper_s_suite_is_counted_where_its_prompts_are(absent, monkeypatch, tmp_path):
    (tmp_path / "assets").mkdir()
    for name, path in make_prompt_files(tmp_path).items():
        pinned = replace(assets.TABLE[name], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        monkeypatch.setitem(assets.TABLE, name, pinned)
        path.rename(pinned.home(tmp_path))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    config = read_experiment(EXPERIMENTS / "paper_main.toml", {})
    it = work.Work(config, tmp_path, Assumptions())
    images = 553 * 4 + 1018 + 200 * 5
    sampling = images * 40 * 2 * forward_by_hand(SD35_MEDIUM)
    assert it.suite.images() == images == 4230
    assert sampling < it.evaluation_flops(1) < 1.02 * sampling  # decoding and judges cost little
    assert it.evaluation_flops(3) == 3 * it.evaluation_flops(1)  # the paper's protocol draws all prompts each time
    assert it.evaluation_flops(1) == pytest.approx(0.84e18, rel=0.01)  # docs/paper-experiments.md
    assert it.probe_flops == 0  # its corpus has no pairs but those that methods train on
    asked = work.Work(config.model_copy(update={"holdout": 256}), tmp_path, Assumptions())
    assert 0 < asked.probe_flops < images * 40 * 2 * forward_by_hand(SD35_MEDIUM) / 4
    silent = work.Work(config.model_copy(update={"holdout": 256, "probes": False}), tmp_path, Assumptions())
    assert silent.probe_flops == 0
    assert asked.jobs()[0].probe_flops == config.evaluations * asked.probe_flops
    assert asked.shared_flops - it.shared_flops == pytest.approx(len(config.subsets) * asked.probe_flops)
    (line,) = machine.missing_assets(it.metrics, tmp_path)
    for name in ("pickscore_v1", "clip_vit_h14_processor", "hpsv2_1", "bert_vocabulary", "lpips_heads"):
        assert name in line.partition("run `bench assets fetch ")[2]


# -- a step -----------------------------------------------------------------------------------------------------------


def test_a_step_of_sft_and_soar_is_counted_without_a_model():
    assert probe.one_step(small("sft", batch_size=12), None) == probe.Step(12, 0, 12, 0, 0, 1, graph_samples=12)
    soar = probe.one_step(small("soar", batch_size=12), None)
    assert (soar.forwards, soar.backwards) == (12 + 12 + 6 * 12, 12 + 6 * 12)
    branched = probe.one_step(small("soar", batch_size=12, sde_branches=1), None)
    assert soar.forwards + 5 * 12 < branched.forwards <= soar.forwards + 6 * 12  # a branch has no point at u' = 0


def test_a_step_of_flow_grpo_is_sampling_two_updates_and_the_reference():
    step = probe.one_step(small("flow_grpo", prompts=3, group_size=4), None)
    sampled, reference, trained = 12 * 10 * 2, 12 * 9 * 2, 12 * 9
    unconditional = 6 * 9  # for the second update; the first knows it from sampling
    assert (step.forwards, step.backwards) == (sampled + reference + trained + unconditional, trained)
    assert step.reference_forwards == reference
    assert (step.images, step.reward_calls, step.updates) == (12, 12, 2)


@pytest.mark.parametrize(("micro_batch", "processes", "samples"), [(None, 1, 12), (None, 4, 3), (2, 1, 2), (2, 12, 1)])
def test_micro_batches_and_processes_bound_the_samples_in_graphs(micro_batch, processes, samples):
    assert probe.one_step(small("sft", batch_size=12), micro_batch, processes).graph_samples == samples


class Hoarder(NaNLoss):
    """Builds three graphs before it lets go of one."""

    def step(self, job: Any) -> None:
        for pairs in job.pairs(4):
            losses = [job.policy.velocity(pairs.latents, level, pairs.text).sum() for level in (0.2, 0.5, 0.8)]
            job.accumulate(sum(losses), len(pairs))
        job.update()


def test_a_plugin_that_nothing_here_knows_is_counted_too():
    step = probe.one_step(Hoarder(Hoarder.Config()), None)
    assert (step.forwards, step.backwards, step.graph_samples) == (12, 12, 12)
    assert probe.one_step(Growing(Growing.Config()), None).forwards == 2


class Broken(PostTrainingMethod):
    Config, needs, traits = MethodConfig, Needs(), NaNLoss.traits

    def setup(self, job: Any) -> None:
        raise RuntimeError("it wants the moon")

    def step(self, job: Any) -> None: ...


def test_a_method_that_cannot_be_tried_says_why():
    with pytest.raises(BenchError, match=r"could not be tried: RuntimeError: it wants the moon"):
        probe.one_step(Broken(MethodConfig()), None)


def test_trying_a_step_leaves_the_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    probe.one_step(small("sft", batch_size=2), None)
    assert torch.equal(torch.rand(3), expected)


def test_a_lora_of_rank_32_is_the_75_mb_of_the_paper():
    trained = probe.what_trains(small("flow_grpo"), architecture(), low=True)
    assert 4 * trained.trained == pytest.approx(75e6, rel=2e-3)
    assert trained.copies == 4 * trained.trained  # its moving average
    assert trained.frozen == 2_243_171_520


def test_methods_that_train_the_same_are_counted_once(monkeypatch):
    costs: dict[tuple[Any, ...], Any] = {}
    monkeypatch.setattr("bench.flops.COUNTED", costs)
    first = probe.what_trains(small("sft"), TINY, low=True)
    assert probe.what_trains(small("soar"), TINY, low=True) == first
    assert len(costs) == 1
    lora = probe.what_trains(small("flow_grpo"), TINY, low=True)
    assert len(costs) == 3  # with the adapter and without
    assert lora.reference == first.cost.forward == first.reference < lora.cost.forward
    smaller = probe.what_trains(small("flow_grpo", lora_rank=8), TINY, low=True)  # the same names, fewer weights
    assert smaller.cost.forward < lora.cost.forward and smaller.reference == lora.reference


# -- memory and disk --------------------------------------------------------------------------------------------------


def needed(trained: probe.Trained, **changes: Any) -> memory.Memory:
    usual: dict[str, Any] = dict(layers=10, low=True, adam_8bit=False, sharded=False, gpus=1)
    return memory.training_memory(trained, 7, **usual | changes)


def test_memory_of_a_full_fine_tune_is_the_table_s():
    trained = probe.Trained(probe.Flops(0, 0), 0, 1000, 0, copies=800)
    assert needed(trained) == memory.Memory(4000, 4000, 8000, 800 + 2000, 7)
    assert needed(trained, low=False).copies == 800
    assert needed(trained, adam_8bit=True).optimizer == 2000
    assert needed(trained, gpus=8).gradients == 8000  # DDP's buckets
    assert needed(trained, gpus=8, sharded=True) == memory.Memory(500, 500, 1000, 100 + 2 * 2 * 100, 7)
    assert needed(trained).total == 4000 + 4000 + 8000 + 2800 + 7 + memory.CONTEXT


def test_an_adapter_is_not_sharded_and_its_base_is_kept_in_the_precision_of_products():
    trained = probe.Trained(probe.Flops(0, 0), 0, 10, 1000, copies=0)
    assert needed(trained, gpus=8, sharded=True).weights == 4 * 10 + 2 * 1000
    assert needed(trained, low=False).weights == 4 * 10 + 4 * 1000


def test_checkpointing_saves_inputs_and_one_block():
    whole, kept = (memory.saved_for_backward(TINY, low=False, checkpointing=on) for on in (False, True))
    tokens, width = (128 // 8 // 2) ** 2 + TINY.text_tokens, 8
    inputs = TINY.transformer["num_layers"] * tokens * width * 4
    assert kept - whole // TINY.transformer["num_layers"] >= inputs
    assert inputs < kept < 0.8 * whole


def test_activations_of_sd35_medium_fit_where_they_are_known_to_fit():
    """Without checkpointing 4 GB a sample, so that a batch of 8 beside 40 GB of states fills an 80 GB GPU."""
    whole = memory.saved_for_backward(architecture(), low=True, checkpointing=False)
    assert 3e9 < whole < 5e9


def config(tmp_path: Path, **values: Any) -> ExperimentConfig:
    return read_experiment(None, {"methods": ("sft",), "suite": "smoke", **values})


def test_pairs_come_from_the_last_manifest_that_fits(tmp_path):
    def cut(folder: str, **head: Any) -> None:
        path = tmp_path / "cuts" / "corpus" / folder / "manifest.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"corpus": "world", "subset": "high_aesthetic"} | head))

    cut("a", count=11, threshold=6.0)
    cut("b", count=12, subset="all")
    cut("c", count=13, corpus="other")
    it = work.Work(config(tmp_path), tmp_path, Assumptions())
    assert it.pairs("high_aesthetic") == 11
    asked = config(tmp_path, subset={"high_aesthetic": {"threshold": 7.0}})
    assert work.Work(asked, tmp_path, Assumptions()).pairs("high_aesthetic") is None


def test_a_corpus_in_files_is_known_by_the_name_that_its_manifests_have(tmp_path):
    path = tmp_path / "cuts" / "corpus" / "a" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"corpus": "train.jsonl", "subset": "high_aesthetic", "count": 11}))
    for spelled in ("train.jsonl", "data/train.jsonl", "data/train.jsonl?caption=short"):
        assert work.Work(config(tmp_path, corpus=spelled), tmp_path, Assumptions()).pairs("high_aesthetic") == 11


def test_text_of_a_corpus_in_files_is_taken_to_be_encoded_ahead_until_its_pairs_are_known(tmp_path):
    """It takes more memory: a micro-batch that was chosen without it may not fit."""
    assert work.Work(config(tmp_path, corpus="data/train.jsonl"), tmp_path, Assumptions()).ahead("high_aesthetic")
    assert not work.Work(config(tmp_path), tmp_path, Assumptions()).ahead("high_aesthetic")


def test_pairs_that_the_source_reports_count_until_a_subset_is_cut(tmp_path):
    rule = SimpleNamespace(threshold=6.8, quantile=None, pairs=3725)
    asked = config(tmp_path).model_copy(update={"subset": {"high_aesthetic": rule}})
    assert work.Work(asked, tmp_path, Assumptions()).pairs("high_aesthetic") == 3725


def test_disk_counts_latents_text_checkpoints_and_images(tmp_path):
    folder = tmp_path / "cuts" / "corpus" / "a"
    folder.mkdir(parents=True)
    head = {"corpus": "world", "subset": "high_aesthetic", "count": 100}
    (folder / "manifest.json").write_text(json.dumps(head))
    drawn = config(tmp_path, suite="embedded")  # of which evaluations on the way draw a part
    it, job = work.Work(drawn, tmp_path, Assumptions()), JobPlan("j", disk=1000)
    sizes = {line.what: line.size for line in disk.disk(it, [job, job])}
    assert sizes["weights to fetch"] == 0
    assert sizes["latents of high_aesthetic"] == 100 * 4 * 8 * 16 * 16
    assert sizes["text of high_aesthetic"] == 100 * 2 * (24 * 128 + 128)
    assert sizes["checkpoints and weights"] == 3000  # one more while the last is written
    whole, part = it.suite.images(), it.suite.part().images()
    assert part < whole and sizes["images"] == round((whole + 2 * (part + whole)) * 64 * 64 * 3 * disk.PNG)
    assert not it.ahead("high_aesthetic")
    limited = work.Work(config(tmp_path, text_cache_limit="1KB"), tmp_path, Assumptions())
    assert limited.ahead("high_aesthetic")
    assert {line.what: line.size for line in disk.disk(limited, [])}["text of high_aesthetic"] == 0


# -- the experiment files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_files_are_read(name):
    config = read_experiment(EXPERIMENTS / f"paper_{name}.toml", {})
    assert config.run_name == f"paper_{name}"
    assert config.backbone == "stabilityai/stable-diffusion-3.5-medium"
    assert (config.resolution, config.micro_batch, config.dtype) == (512, 4, "bfloat16")
    batch, updates = (512, 10_000) if name in ("main", "ablation") else (32, 5_000)
    assert config.budget == f"updates={updates}"
    for row in config.methods:
        method = registry.load("methods", config.method_of(row))
        settings: Any = method_config(method, "full", config.overrides_of(row))
        if "batch_size" in type(settings).model_fields:
            assert (settings.batch_size, settings.lr) == (batch, 2e-5)
        else:
            assert settings.prompts * settings.group_size == settings.updates * batch


def test_the_ablation_changes_one_thing_a_row():
    config = read_experiment(EXPERIMENTS / "paper_ablation.toml", {})
    base = config.overrides_of("soar")
    changed = {row: {k: v for k, v in config.overrides_of(row).items() if base.get(k) != v} for row in config.methods}
    assert changed["soar"] == {}
    assert changed["soar_sde"] == {"sde_branches": 1, "sde_kind": "cps", "sde_scale": 0.5}
    assert changed["soar_fresh"] == {"fresh_noise": True}


@pytest.mark.parametrize("name", PAPER)
def test_every_value_of_the_paper_s_files_says_where_it_comes_from(name):
    lines = (EXPERIMENTS / f"paper_{name}.toml").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"\w+ = ", line) and not re.match(r"(name|method) = ", line):
            assert "#" in line or before.startswith("#"), line


# -- a dry run --------------------------------------------------------------------------------------------------------


def test_text_that_is_encoded_ahead_is_in_no_hours_and_a_cache_is_advised(paper_main):
    """2 FLOPs x 5.58 B weights x 256 tokens are 2.86 TFLOP; 333 tokens of 4096 and 2048 pooled are 2.73 MB."""
    (note,) = [note for note in paper_main.notes if "encoded ahead" in note]
    hours = 286_119 * 2 * 5_580_620_800 * 256 / (0.45 * 989e12) / 3600
    assert f"2.86 TFLOP a caption, {hours:.3g} GPU-hours for each pass over 286,119 captions" in note
    assert f"text_cache_limit {-(-286_119 * 2 * (333 * 4096 + 2048) // 10**9)}GB" in note


def test_a_dry_run_prints_the_plan_and_what_is_missing(paper_main, monkeypatch, tmp_path):
    asked: list[tuple[Assumptions, Any]] = []

    def planned(config: ExperimentConfig, workspace: Workspace, *known: Any) -> ExperimentPlan:
        asked.append(known)
        return paper_main

    monkeypatch.setattr(show, "plan_experiment", planned)
    monkeypatch.setattr("bench.experiment.run.run_experiment", lambda *a, **k: pytest.fail("it was started"))
    monkeypatch.chdir(tmp_path)
    command = ["run", str(EXPERIMENTS / "paper_main.toml"), "--dry-run", "--peak-tflops", "790", "--gpus", "4"]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert asked == [(Assumptions(peak=790e12, gpus=4), {})]  # nothing was rehearsed
    for text in ("sft--all--s0", "soar--all--s0", "10,000", "23.4", "171.6", "GPU-hours", "disk", "nothing is started"):
        assert text in result.output
    for text in ("backbone: ", "corpus: there is no data/soar", "geneval_prompts is missing", "FLUX.1-dev is not on"):
        assert any(line.startswith("  - ") and text in line for line in result.output.splitlines()), text
    assert torch.cuda.is_available() or "GPU: there is none here, and 2.24 B parameters" in result.output
    assert not re.search("[\u2500-\u257f\x1b]", result.output)  # no frames and no colours where there is no terminal
    assert not any(tmp_path.iterdir())


def test_the_default_run_is_planned_as_it_ran(absent, tmp_path):
    plan = plan_experiment(read_experiment(None, {}), Workspace(tmp_path / "cache", tmp_path / "runs"), Assumptions())
    updates = {job.name.partition("--")[0]: job.updates for job in plan.jobs}
    assert updates == {"sft": 176, "soar": 24, "flow_grpo": 26}  # reports/reference/high_aesthetic/compute.md
    assert not [line for line in plan.missing if not line.startswith(("disk", "package"))]
    assert not any(tmp_path.iterdir())


def test_a_row_that_cannot_be_planned_leaves_the_others(absent, monkeypatch, tmp_path):
    whole = probe.one_step

    def one_step(method: PostTrainingMethod, *limits: Any) -> probe.Step:
        if type(method).__name__ == "SOAR":
            raise BenchError("a step could not be tried: no")
        return whole(method, *limits)

    monkeypatch.setattr(probe, "one_step", one_step)
    config = read_experiment(None, {"methods": ("sft", "soar"), "suite": "smoke"})
    plan = plan_experiment(config, Workspace(tmp_path, tmp_path), Assumptions())
    assert [job.problem for job in plan.jobs] == ["", "a step could not be tried: no"]
    assert plan.jobs[0].steps > 0


REFUSED = {
    "tuned on a prompt of the suite": ["--tuned", "tuned.toml"],
    "a prompt twice": ["twice.toml"],
    "no such setting": ["--set", "sft.lrr=1e-3"],
    "a reward that needs facts": ["--methods", "flow_grpo", "--reward", "world_geneval"],
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_a_dry_run_refuses_what_a_run_refuses_in_the_same_line(monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    tested = registry.load("suites", "smoke")().texts()[0]
    tuned = Tuned(
        trials=1, suite="other", objective="o", seed=9, budget="b", backbone="tiny-sd3", corpus="world", subsets=(),
        prompts=(prompt_key(tested),),
    )  # fmt: skip
    Path("tuned.toml").write_text(to_toml(tuned))
    Path("prompts.txt").write_text("a dog\na dog\n")
    Path("twice.toml").write_text('prompts = "prompts.txt"\n')
    command = ["run", "--methods", "sft", "--suite", "smoke", "--quiet", *arguments]
    said = [CliRunner().invoke(main, [*command, *more], catch_exceptions=False) for more in ([], ["--dry-run"])]
    assert [(each.exit_code, len(each.output.splitlines())) for each in said] == [(1, 1), (1, 1)]
    assert said[0].output == said[1].output and said[0].output.startswith("bench: ")
    assert not Path("runs").exists()


def test_a_suite_whose_prompts_are_not_here_is_planned_without_evaluations(absent, tmp_path):
    it = work.Work(read_experiment(EXPERIMENTS / "paper_main.toml", {}), tmp_path, Assumptions())
    assert it.suite is None and it.evaluation_flops(1) is None and "suite: " in it.problems[0]


@pytest.mark.parametrize(
    ("budget", "steps"), [("steps=7", 7), ("updates=7", 3), ("flops=1e6", 10), ("device-seconds=10", 100)]
)
def test_every_currency_buys_steps(tmp_path, budget, steps):
    it = work.Work(config(tmp_path, budget=budget), tmp_path, Assumptions(peak=2e6, utilisation=0.5))
    assert it.steps_within([100_000], [2], [1.0]) == [steps]


def test_a_backbone_that_nobody_knows_is_one_line(absent, tmp_path):
    with pytest.raises(BenchError, match="someone/else is not in the cache"):
        find(config(tmp_path, backbone="someone/else"), 64)


def test_a_local_folder_is_planned_from_its_configs(tiny_pipeline, tmp_path):
    it = find(config(tmp_path, backbone=str(tiny_pipeline), resolution=16, max_sequence_length=5), None)
    assert it.folder == tiny_pipeline
    assert it.latent_shape() == (4, 4, 4)
    assert it.text_tokens == it.clip_tokens + 5
    assert it.text_parameters > 0


def test_memory_that_was_rehearsed_stands_beside_the_formula_s(tmp_path, capsys):
    place, found = Workspace(tmp_path / "cache", tmp_path / "runs"), 3 * 2**30
    told = read_experiment(None, {"methods": ("sft", "soar")})
    plan = plan_experiment(told, place, Assumptions(), {"sft": found})
    sft, soar = plan.jobs
    assert (sft.memory, soar.formula) == (found, 0)
    assert sft.formula == plan_experiment(told, place, Assumptions()).jobs[0].memory
    assert any("bench rehearse" in note for note in plan.notes)
    show.show(plan)
    printed = capsys.readouterr().out
    assert "by the formula" in printed and "not rehearsed" in printed
    assert f"({sft.formula / found - 1:+.0%})" in printed


def test_a_folder_of_configurations_alone_is_planned_for(tmp_path):
    (tmp_path / "it" / "transformer").mkdir(parents=True)
    (tmp_path / "it" / "transformer" / "config.json").write_text(json.dumps(SD35_MEDIUM))
    told = find(read_experiment(None, {"backbone": str(tmp_path / "it")}), 512)
    assert (told.folder, told.clip_tokens, told.latent_shape()) == (None, SD3_CLIP_TOKENS, (16, 64, 64))
    assert sum(p.numel() for p in told.empty_transformer().parameters()) == 2_243_171_520


def test_a_folder_of_another_model_s_configuration_is_refused(tmp_path):
    (tmp_path / "it" / "transformer").mkdir(parents=True)
    (tmp_path / "it" / "transformer" / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    with pytest.raises(BenchError, match="is a FluxTransformer2DModel"):
        find(read_experiment(None, {"backbone": str(tmp_path / "it")}), 512)


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("text_encoder", {"max_position_embeddings": "x"}),
        ("transformer", SD35_MEDIUM | {"num_layers": "x"}),
        ("transformer", SD35_MEDIUM | {"sample_size": None}),
        ("vae", {"block_out_channels": 3}),
    ],
)
def test_a_configuration_that_makes_no_model_is_one_line(tmp_path, part, content):
    for name, values in {"transformer": SD35_MEDIUM, part: content}.items():
        (tmp_path / "it" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "it" / name / "config.json").write_text(json.dumps(values))
    with pytest.raises(BenchError, match=r"the configuration of .*it makes no SD3 model: \w+Error: "):
        find(read_experiment(None, {"backbone": str(tmp_path / "it")}), None)


def test_what_a_vae_does_not_say_is_sd3_s(tmp_path):
    for name, values in {"transformer": SD35_MEDIUM, "vae": {}}.items():
        (tmp_path / "it" / name).mkdir(parents=True)
        (tmp_path / "it" / name / "config.json").write_text(json.dumps(values))
    assert find(read_experiment(None, {"backbone": str(tmp_path / "it")}), 512).vae == SD3_VAE


def test_a_budget_that_pays_for_no_step_is_a_problem_of_its_row(tmp_path):
    config = read_experiment(None, {"methods": ("sft",), "suite": "smoke", "budget": "flops=100"})
    (job,) = plan_experiment(config, Workspace(tmp_path, tmp_path), Assumptions()).jobs
    assert job.problem == "the budget flops=100 pays for no step of sft"


def test_a_method_whose_step_spends_nothing_is_a_problem_of_its_row(absent, monkeypatch, tmp_path):
    """Its steps were divided by zero."""
    whole = probe.one_step

    def one_step(method: PostTrainingMethod, *limits: Any) -> probe.Step:
        step = whole(method, *limits)
        idle = dict.fromkeys(("forwards", "reference_forwards", "backwards", "images"), 0)
        return replace(step, **idle) if type(method).__name__ == "SOAR" else step

    monkeypatch.setattr(probe, "one_step", one_step)
    config = read_experiment(None, {"methods": ("sft", "soar"), "suite": "smoke"})
    plan = plan_experiment(config, Workspace(tmp_path, tmp_path), Assumptions())
    assert [job.problem for job in plan.jobs] == ["", f"a step of soar spends nothing of {config.budget}"]
