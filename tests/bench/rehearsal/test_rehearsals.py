"""Every method takes its steps on a pretended GPU, and a tensor on the wrong device is found where it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from launching import wait_until

from bench import registry
from bench.backbone.family import T5_TOKENS
from bench.check.world import TRANSFORMER, VAE
from bench.cli import main
from bench.encoded.encode import TEXT_BATCH
from bench.errors import BenchError
from bench.experiment.config import RELEASED_ROWS, ExperimentConfig, SubsetRule, read_experiment, rows_at_once
from bench.machine import engine
from bench.machine.engine import REPLICATION, Engine
from bench.rehearsal import answers
from bench.rehearsal.ask import memory_of, rehearsed
from bench.rehearsal.results import PARTS, Rehearsal, Setting, setting_of
from bench.rehearsal.stages import stages_of

pytestmark = pytest.mark.skipif(answers.why_not() is not None, reason=str(answers.why_not()))

METHODS = tuple(name for name, place in registry.table("methods").items() if str(place).startswith("methods."))
PAIRS = ("sft", "soar", "input_perturbation", "reflexflow", "mixflow", "dpo")
FEW = (
    *(f"{name}.{setting}" for name in ("flow_grpo", "diffusion_nft") for setting in ("prompts=4", "group_size=4")),
    "flow_grpo.sampling_steps=3", "diffusion_nft.sampling_steps=3", "leap_align.prompts=6",
    "leap_align.sampling_steps=4", *(f"{name}.batch_size=6" for name in PAIRS),
)  # fmt: skip
"""Batches of a few micro-batches of two."""
LONG = {"soar": ("batch_size=6", "aux_points=3"), "flow_grpo": ("prompts=2", "group_size=4", "sampling_steps=4")}
"""Steps of several turns that are alike."""

SIDE, WIDTH = 32, 32
CLIP = {"vocab_size": 99, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP |= {"projection_dim": 16, "max_position_embeddings": 77}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
TEXT_PARAMETERS = 2 * (99 * 16 + 77 * 16 + 2 * (4 * 272 + 2 * 32 + 1072) + 32 + 256) + (
    99 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 64) + 32 * 4 + 32
)
"""By hand: of CLIP tables, layers of attention, norms and a network of two, a norm, a projection; of T5 the same."""
ENCODERS = {"text_encoder": CLIP, "text_encoder_2": CLIP, "text_encoder_3": T5 | {"feed_forward_proj": "gated-gelu"}}
POSITIONS = 4 * SIDE**2 * WIDTH
"""Bytes of the table of positions, which is no parameter."""

HEAD = """
import torch
from bench import flow, matching
from bench.method import Needs, PostTrainingMethod, Traits

class Mixed(PostTrainingMethod):
    Config = matching.MatchingConfig
    needs = Needs(pairs=True, prompts=True, reward=True)
    traits = Traits("", "", "", "", "", "", "", "")

    def setup(self, job):
        job.train_full(**self.config.adamw())
        self.memory, self.average = None, [p.detach().cpu() for p in job.parameters]

    def step(self, job):
        for pairs in job.pairs(4):
            z1, _, sigma = matching.draw(job, pairs)
            z = flow.interpolate(pairs.latents, z1, sigma)
            errors = flow.velocity_error(job.policy.velocity(z, sigma, pairs.text), z1 - pairs.latents)
"""
TAIL = """
            job.accumulate(errors.sum(), len(pairs))
        job.update()
"""
MIX_UPS = {
    # An index on the device for rows that lie on the host.
    "index": HEAD + "            chosen = pairs.rows[torch.arange(len(pairs), device=job.device)]  # here\n" + TAIL,
    # A generator of the CPU draws on the device.
    "generator": HEAD
    + "            noise = torch.randn(2, generator=job.rng('own'), device=job.device)  # here\n"
    + TAIL,
    # An average of the weights that stayed on the host.
    "average": HEAD + TAIL + "        flow.ema_update(self.average, job.parameters, 0.9)  # here\n",
    # Rewards that were taken to the host weigh errors that were not.
    "reward": HEAD
    + "            scores = job.reward(job.decode(z), [None] * len(pairs)).cpu()\n"
    + "            errors = errors * scores  # here\n"
    + TAIL,
    # A state that comes back from a checkpoint where it was written: on the host.
    "checkpoint": HEAD
    + "            errors = errors if self.memory is None else errors * self.memory  # here\n"
    + TAIL
    + "\n    def state_dict(self):\n        return {} if self.average is None else {'memory': torch.ones(2)}\n"
    + "\n    def load_state_dict(self, state):\n        self.memory = state['memory']\n",
}
"""A method for each, and the comment behind the line that mixes up."""

WHOLE = """
from bench import registry

class Whole(registry.load("methods", {name!r})):
    def setup(self, job):
        job.show(1000)
        super().setup(job)
"""
"""A method of which every turn is computed."""

ENCODER = """
import torch
from diffusers import StableDiffusion3Pipeline

usual = StableDiffusion3Pipeline.encode_prompt

def encode_prompt(self, *texts, **options):
    embeds, _, pooled, _ = usual(self, *texts, **options)
    return embeds * torch.ones(len(embeds), 1, 1), None, pooled, None  # here

StableDiffusion3Pipeline.encode_prompt = encode_prompt
"""
"""Weights of the host for embeddings of the device, on the thread that encodes captions ahead."""

JUDGE = """
import torch
from bench import registry
from bench.metric import Metric

class Judge(Metric):
    name, label, version, differentiable = "judge", "judge", 1, True

    def prepare(self):
        self.head = torch.nn.Linear(3, 1024, device="cuda").requires_grad_(False)

    def release(self):
        self.head = None

    def score(self, images, prompts):
        colours = torch.stack([torch.from_numpy(image).float().mean((0, 1)) for image in images])
        return self.head(COLOURS).mean(1).tolist()  # here

    def differentiable_score(self, pixels, prompts):
        return self.head(pixels.mean((2, 3))).mean(1)

registry.add("metrics", "judge", f"{__name__}:Judge")
"""
"""A reward with a model. Its pictures' colours go to the device, or are left on the host."""

END = """
import os

class End(Mixed):
    def setup(self, job):
        os._exit(3)

del Mixed
"""
"""A method that ends the process of the rehearsal."""

SLOW = """
import os, time
from pathlib import Path

class Slow(Mixed):
    def setup(self, job):
        Path({seen!r}).with_name("new").write_text(str(os.getpid()))
        Path({seen!r}).with_name("new").rename({seen!r})
        time.sleep(600)

del Mixed
"""
"""A method that says which process it is in, and then takes its time."""

LOST_THREADS = {
    # A process alone on one GPU gets the device "cuda" from accelerate, and a thread chooses its GPU by number.
    "no number": """
usual = Engine.__init__

def __init__(self, **options):
    usual(self, **options)
    self.device = torch.device("cuda")

Engine.__init__ = __init__
""",
    # A thread that chooses none works on the first GPU, on every process.
    "no choice": """
from concurrent.futures import ThreadPoolExecutor

Engine.thread = lambda self, name: ThreadPoolExecutor(1, name)
""",
}
OF_ENGINE = "import torch\nfrom bench.machine.engine import Engine\n"
IMPATIENT = {
    # The group of the devices, which NCCL ends after ten minutes.
    "devices": "Engine.barrier = lambda self: torch.distributed.barrier()  # here\n",
    # A group of its own, of which nobody said how long it waits.
    "own": """
import bench.machine.engine
bench.machine.engine.PATIENCE = None
""",
}
"""Faults of the harness itself, as the file of a method brings them in."""


@dataclass(frozen=True)
class World:
    """A pipeline of which there are configurations alone, and a cache."""

    folder: Path

    def config(self, *methods: str, settings: tuple[str, ...] = (), **flags: Any) -> ExperimentConfig:
        values = {"methods": methods, "backbone": str(self.folder / "tiny"), "resolution": 16, "evaluation_batch": 4}
        values |= {"reward": "brightness"}  # of rules: a stand-in scores
        names = {setting.partition(".")[0] for setting in settings} & {Path(name).stem for name in methods}
        chosen = tuple(setting for setting in settings if setting.partition(".")[0] in names)
        return read_experiment(None, values | {"micro_batch": 2, "dtype": "bfloat16"} | flags, chosen)

    def faulty(self, name: str, fault: str) -> Path:
        """A file of a method that follows a fault."""
        path = self.folder / f"{name}.py"
        path.write_text(fault + HEAD + TAIL, encoding="utf-8")
        return path

    def rehearse(self, config: ExperimentConfig, processes: int = 1) -> dict[str, Rehearsal]:
        done = rehearsed(config, setting_of(config, processes), self.folder / "cache", grid="")
        return {each.stage: each for each in done}


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading an experiment imports its files here too. What faulty ones change is put back after the test."""
    from diffusers import StableDiffusion3Pipeline

    changed = ((Engine, ("__init__", "thread", "barrier")), (engine, ("PATIENCE",)))
    for owner, names in (*changed, (StableDiffusion3Pipeline, ("encode_prompt",))):
        for name in names:
            monkeypatch.setattr(owner, name, getattr(owner, name))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("rehearsal")
    roomy = TRANSFORMER | {"pos_embed_max_size": SIDE}  # the suite's pictures are larger than those that train
    for part, config in {"transformer": roomy, "vae": VAE, **ENCODERS}.items():
        (folder / "tiny" / part).mkdir(parents=True)
        (folder / "tiny" / part / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return World(folder)


@pytest.fixture(scope="module")
def alone(world: World) -> dict[str, Rehearsal]:
    """Every method on one GPU, and the methods that mix devices up."""
    paths = []
    for name, source in MIX_UPS.items():
        paths.append(world.folder / f"{name}.py")
        paths[-1].write_text(source, encoding="utf-8")
    return world.rehearse(world.config(*METHODS, *map(str, paths), settings=FEW, gradient_checkpointing=True))


@pytest.fixture(scope="module")
def spread(world: World) -> dict[str, Rehearsal]:
    """Two processes: a full fine-tune spread over them, and an adapter that each holds."""
    return world.rehearse(world.config("sft", "flow_grpo", settings=FEW, sharding="fsdp"), processes=2)


@pytest.fixture(scope="module")
def counted(world: World) -> dict[str, Rehearsal]:
    """Methods whose turns are counted, and the same methods with every turn computed."""
    paths, settings = [], []
    for name, values in LONG.items():
        paths.append(world.folder / f"whole_{name}.py")
        paths[-1].write_text(WHOLE.format(name=name), encoding="utf-8")
        settings += [f"{each}.{value}" for each in (name, f"whole_{name}") for value in values]
    return world.rehearse(world.config(*LONG, *map(str, paths), settings=tuple(settings)))


@pytest.mark.parametrize("method", LONG)
def test_turns_that_are_counted_are_those_that_would_be_computed(counted: dict[str, Rehearsal], method: str) -> None:
    some, every = counted[method], counted[f"whole_{method}"]
    assert [some.problem, every.problem] == ["", ""]
    for name in ("first step", "step"):
        one, other = some.part(name), every.part(name)
        assert one is not None and other is not None
        assert (one.operators, one.waits, one.host_bytes) == (other.operators, other.waits, other.host_bytes)
        assert (one.peak, one.left) == (other.peak, other.left)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_takes_its_steps_is_evaluated_and_resumes(alone: dict[str, Rehearsal], method: str) -> None:
    done = alone[method]
    assert done.problem == ""
    assert tuple(part.name for part in done.parts) == PARTS
    step = done.part("step")
    assert step is not None and {"backward", "update"} <= set(step.phases)


WAITS = {"sft": 3, "input_perturbation": 3, "reflexflow": 8, "mixflow": 8, "soar": 8}
"""Of a step: what is added up at its end, and what a method asks of its values. A ``.cpu()`` on the way makes more."""


@pytest.mark.parametrize("method", WAITS)
def test_a_step_on_pairs_mixes_no_devices_and_has_no_float64(alone: dict[str, Rehearsal], method: str) -> None:
    step = alone[method].part("step")
    assert step is not None
    assert [place for place in step.dtypes if "float64" in place.what] == []
    assert step.devices == ()


@pytest.mark.parametrize("method", WAITS)
def test_a_step_waits_no_more_than_is_known(alone: dict[str, Rehearsal], method: str) -> None:
    step = alone[method].part("step")
    assert step is not None and step.waits <= WAITS[method], step.waiting


@pytest.mark.parametrize("name", MIX_UPS)
def test_a_mix_up_is_found_at_its_line(alone: dict[str, Rehearsal], name: str) -> None:
    assert f"{name}.py:{line_of(MIX_UPS[name])}" in alone[name].problem


@pytest.mark.parametrize(
    ("name", "found"),
    [("no number", "A thread initializer failed"), ("no choice", "before it chose its GPU with torch.cuda.set_device")],
)
def test_a_thread_without_its_gpu_is_found(world: World, name: str, found: str) -> None:
    path = world.faulty(name.replace(" ", "_"), OF_ENGINE + LOST_THREADS[name])
    done = world.rehearse(world.config(str(path)))[path.stem]
    assert found in done.problem
    assert done.problem.startswith("bench/")


@pytest.mark.parametrize(("name", "minutes"), [("devices", 10), ("own", 30)])
def test_a_wait_that_ends_too_soon_is_found(world: World, name: str, minutes: int) -> None:
    path = world.faulty(f"impatient_{name}", OF_ENGINE + IMPATIENT[name])
    done = world.rehearse(world.config(str(path)), processes=2)[path.stem]
    assert f"processes wait here in a group that gives up after {minutes} minutes" in done.problem


def ahead(config: ExperimentConfig) -> ExperimentConfig:
    """The same, with captions that are too many for the cache."""
    rules = {subset: SubsetRule(pairs=1000) for subset in config.subsets}
    return config.model_copy(update={"subset": rules, "text_cache_limit": "1KB"})


def line_of(source: str) -> int:
    return next(n for n, text in enumerate(source.splitlines(), 1) if text.endswith("# here"))


def test_text_ahead_is_encoded_on_the_tape(world: World) -> None:
    done = world.rehearse(ahead(world.config("sft", settings=("sft.batch_size=2",), gradient_checkpointing=True)))[
        "sft"
    ]
    assert done.problem == ""
    setup, step = done.part("setup"), done.part("step")
    assert setup is not None and step is not None
    # In bfloat16: 95 tensors in whole blocks, and the condition of the empty prompt.
    assert 2 * TEXT_PARAMETERS <= setup.kinds["text"] <= 2 * TEXT_PARAMETERS + 512 * 150
    embeds = TEXT_BATCH * (77 + T5_TOKENS) * T5["d_model"]  # of a batch in float32, before it goes to the host
    assert step.phases["text"]["text"] - setup.kinds["text"] >= 4 * embeds
    assert any(place.where.startswith("bench/backbone/loader.py") for place in step.waiting)


def test_a_mix_up_in_the_encoder_s_thread_is_found_at_its_line(world: World) -> None:
    path = world.faulty("encoder", ENCODER)
    assert f"encoder.py:{line_of(ENCODER)}" in world.rehearse(ahead(world.config(str(path))))["encoder"].problem


def test_a_reward_s_model_is_rehearsed(world: World) -> None:
    path = world.faulty("judged", JUDGE.replace("COLOURS", "colours.to('cuda')"))
    config = world.config("flow_grpo", "leap_align", settings=FEW, plugins=(str(path),), reward="judge")
    for done in world.rehearse(config).values():
        step = done.part("step")
        assert (done.problem, done.reward) == ("", "judge")
        assert step is not None and step.phases["reward"]["weights"] > 4 * (4 * 1024)


def test_a_mix_up_in_a_reward_s_model_is_found_at_its_line(world: World) -> None:
    path = world.faulty("mixed_judge", JUDGE.replace("COLOURS", "colours"))
    done = world.rehearse(world.config("flow_grpo", settings=FEW, plugins=(str(path),), reward="judge"))["flow_grpo"]
    assert f"mixed_judge.py:{line_of(JUDGE)}" in done.problem


def test_a_stand_in_for_a_reward_is_named(alone: dict[str, Rehearsal]) -> None:
    assert alone["flow_grpo"].reward == "a stand-in without a model (brightness: no torch model)"
    assert alone["sft"].reward == ""


def test_a_row_that_is_done_is_kept_when_the_next_one_is_stopped(world: World) -> None:
    path = world.folder / "end.py"
    path.write_text(HEAD + TAIL + END, encoding="utf-8")
    config = world.config("sft", str(path), settings=("sft.batch_size=2",))
    with pytest.raises(BenchError, match="the process that rehearses ended with status 3"):
        world.rehearse(config)
    assert set(memory_of(config, 1, world.folder / "cache")) == {"sft"}


def test_the_average_over_the_budget_is_counted(world: World) -> None:
    with_average = world.config("sft", settings=("sft.batch_size=2",), average_half_life=0.1)
    done = world.rehearse(with_average)["sft"]
    assert done.problem == ""
    for name in ("step", "evaluation", "resume"):
        part = done.part(name)
        assert part is not None
        assert (name, part.kinds.get("averages")) == (name, pytest.approx(4 * done.parameters, abs=512 * 200))


def test_a_command_that_is_killed_leaves_no_process(world: World, tmp_path: Path) -> None:
    path, seen = tmp_path / "slow.py", tmp_path / "process"
    path.write_text(HEAD + TAIL + SLOW.format(seen=str(seen)), encoding="utf-8")
    call = ("rehearse", "--methods", str(path), "--backbone", str(world.folder / "tiny"), "--resolution", "16")
    code = f"from bench.cli import main; main({[*call, '--cache', str(tmp_path / 'cache')]!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(seen.exists)
    worker = psutil.Process(int(seen.read_text()))
    process.kill()
    process.wait()
    wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def test_memory_is_that_of_pencil_and_paper(alone: dict[str, Rehearsal]) -> None:
    sft = alone["sft"]
    step, setup = sft.part("step"), sft.part("setup")
    assert step is not None and setup is not None
    count, rounding = sft.trained, 512 * 200  # each of some hundred tensors takes whole blocks
    assert sft.trained == sft.parameters
    assert 4 * count <= setup.kinds["weights"] - POSITIONS <= 4 * count + rounding
    assert 8 * count <= step.phases["forward"]["optimizer"] <= 8 * count + 2 * rounding
    assert 4 * count <= step.phases["update"]["gradients"] <= 4 * count + rounding
    assert step.phases["forward"]["activations"] > 0


def test_an_adapter_keeps_frozen_weights_in_bfloat16(alone: dict[str, Rehearsal]) -> None:
    done = alone["flow_grpo"]
    step = done.part("step")  # a setup's peak is before the weights are rounded
    assert step is not None and done.trained < done.parameters
    frozen = done.parameters - done.trained
    assert step.kinds["weights"] - POSITIONS < 4 * done.parameters
    assert step.kinds["weights"] - POSITIONS >= 2 * frozen + 4 * done.trained


def test_sharded_states_are_a_share_and_an_adapter_is_held_whole(
    alone: dict[str, Rehearsal], spread: dict[str, Rehearsal]
) -> None:
    assert [each.problem for each in spread.values()] == ["", ""]
    whole, half = alone["sft"].part("step"), spread["sft"].part("step")
    assert whole is not None and half is not None
    assert half.phases["update"]["optimizer"] < 0.7 * whole.phases["update"]["optimizer"]
    replica = spread["flow_grpo"].part("step")
    assert replica is not None
    copies = 1 if REPLICATION.get("gradient_as_bucket_view") else 2  # and DDP's buckets
    assert replica.phases["update"]["gradients"] >= 4 * copies * spread["flow_grpo"].trained


def test_a_row_that_was_rehearsed_is_kept(spread: dict[str, Rehearsal], world: World) -> None:
    config = world.config("sft", "flow_grpo", settings=FEW, sharding="fsdp")
    assert world.rehearse(config, processes=2) == spread  # of the cache: seconds are equal
    assert world.rehearse(world.config("sft", settings=FEW, sharding="fsdp"), processes=2) == {"sft": spread["sft"]}


def test_a_configuration_of_another_model_ends_in_one_line(world: World, tmp_path: Path) -> None:
    (tmp_path / "other" / "transformer").mkdir(parents=True)
    (tmp_path / "other" / "transformer" / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    call = ["rehearse", "--backbone", str(tmp_path / "other"), "--cache", str(world.folder / "cache")]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("bench: ") and "is a FluxTransformer2DModel" in result.output


def test_a_machine_without_rehearsals_says_so_in_one_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "TORCH", ("0.1",))
    call = [
        "rehearse",
        "--methods",
        "sft",
        "--backbone",
        str(world.folder / "tiny"),
        "--cache",
        str(world.folder / "no"),
    ]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 1
    assert result.output.startswith("bench: rehearsals are tried with torch 0.1, and this is")
    assert len(result.output.splitlines()) == 1


def test_more_processes_than_prompts_are_refused_by_the_job(world: World) -> None:
    few = world.config("flow_grpo", settings=("flow_grpo.prompts=2", "flow_grpo.group_size=2"))
    assert "2 prompts cannot be shared by 3 processes" in world.rehearse(few, processes=3)["flow_grpo"].problem


def test_a_micro_batch_that_nobody_names_is_that_of_a_run(world: World) -> None:
    config = world.config("sft", micro_batch=None)
    stage = stages_of(config, world.folder / "cache", setting_of(config, 1))[0]
    assert stage.setting.micro_batch == rows_at_once(config, "full", "sft") == RELEASED_ROWS


def test_settings_are_the_experiment_s(world: World) -> None:
    config = world.config("sft", gradient_checkpointing=True)
    assert setting_of(config, 4) == Setting(4, "ddp", 2, True, False)
