"""Methods from outside: a single file, an installed package, and what a run says of one that breaks a promise."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import fakes
import numpy as np
import pytest
from click.testing import CliRunner
from fakes import Brightness
from plugin_files import METHOD, SOUND, changed, line_of, write

from bench import plugins, records, registry
from bench.check.world import World, advance
from bench.cli import main
from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig, read_experiment
from bench.experiment.run import Workspace, run_experiment
from bench.machine.progress import Progress
from bench.records.status import read_status

UPDATE = "        job.update()\n"
LOSS = "loss = flow.velocity_error(velocity, z1 - pairs.latents).sum()"


def refusal(path: Path | str) -> str:
    with pytest.raises(BenchError) as caught:
        plugins.named(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- a single file -----------------------------------------------------------------------------------------------------


def test_a_file_is_a_method_named_after_it(tmp_path, monkeypatch):
    path = write(tmp_path, SOUND)
    monkeypatch.chdir(tmp_path)
    assert plugins.named("./mine.py") == plugins.named(str(path)) == "mine" and plugins.named("sft") == "sft"
    method = registry.load("methods", "mine")
    assert method.__name__ == "Plain" and registry.summary("methods", "mine") == "Flow matching."
    assert plugins.origin("mine") == {"file": "mine.py", "sha256": hashlib.sha256(SOUND.encode()).hexdigest()}
    assert plugins.origin("sft") == "built-in"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]  # nothing is left beside it
    job, trained = World().job(method.needs), method(method.Config())
    trained.setup(job)
    assert advance(job, trained)[0]["loss"] > 0


def test_a_file_that_changed_is_read_again_and_another_of_the_same_name_takes_its_place(tmp_path):
    first = write(tmp_path, SOUND)
    plugins.register(first)
    write(tmp_path, SOUND.replace("batch_size: int = 4", "batch_size: int = 5"))  # as long, and in the same second
    plugins.register(first)
    assert registry.load("methods", "mine").Config().batch_size == 5
    (tmp_path / "other").mkdir()
    plugins.register(write(tmp_path / "other", SOUND))
    assert registry.load("methods", "mine").Config().batch_size == 4


BAD = {
    "syntax": (SOUND.replace("def setup(self, job):", "def setup(self, job)"), "def setup", "does not import: Syntax"),
    "name": (SOUND + "\n\nnothing_there\n", "nothing_there", "does not import: NameError: name 'nothing_there'"),
    "import": ("import no_such_package_anywhere\n", "import", "No module named 'no_such_package_anywhere'"),
    "exit": ("import sys\n\nsys.exit(3)\n", "sys.exit", "does not import: SystemExit: 3"),
    "none": ("from bench.method import PostTrainingMethod\n", None, "holds no method"),
    "built-in alone": ("from methods.sft import SFT\n", None, "holds no method"),
    "several": (SOUND + METHOD.replace("class Plain(", "class Plainer("), None, "several methods (Plain, Plainer)"),
    "abstract": (changed("def step", "def stepp"), None, "Plain does not define step"),
    "needs": (changed("Needs(pairs=True)", "None"), None, "Plain.needs is None; it must be Needs(…)"),
    "config": (changed("Config = PlainConfig", "Config = dict"), None, "it must be a subclass of MethodConfig"),
    "traits": (changed('    traits = Traits(*["-"] * 8)\n', ""), None, "Plain.traits is None; it must be Traits(…)"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_is_no_method_ends_in_one_line(tmp_path, what):
    source, line, says = BAD[what]
    path = write(tmp_path, source)
    found = refusal(path)
    assert says in found and found.startswith(f"{path}:{line_of(source, line)} " if line else f"{path}")
    assert "mine" not in registry.table("methods")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("sft.py", "would be named 'sft', and that is another method; rename the file"),
        ("my-method.py", "rename it to NAME.py, of letters, digits and _"),
        ("class.py", "rename it to NAME.py"),
        ("mine.txt", "rename it to NAME.py"),
    ],
)
def test_a_file_whose_name_cannot_be_a_methods_ends_in_one_line(tmp_path, name, says):
    path = tmp_path / name
    path.write_text(SOUND)
    assert says in refusal(path)


def test_a_file_that_is_not_there_ends_in_one_line(tmp_path):
    assert refusal(tmp_path / "mine.py") == f"the method file {tmp_path / 'mine.py'} is not there"
    result = CliRunner().invoke(main, ["run", "--methods", f"sft,{tmp_path}/mine.py"])
    assert result.exit_code == 1 and result.output == f"bench: the method file {tmp_path}/mine.py is not there\n"


def test_a_helper_base_class_in_the_file_is_no_second_method(tmp_path):
    source = SOUND.replace(
        "class Plain(PostTrainingMethod)", "class Base(PostTrainingMethod):\n    pass\n\n\nclass Plain(Base)"
    )
    plugins.register(write(tmp_path, source))
    assert registry.load("methods", "mine").__name__ == "Plain"


# -- in an experiment --------------------------------------------------------------------------------------------------


def test_an_experiment_takes_files_with_settings_variants_and_stages(tmp_path, monkeypatch):
    path = write(tmp_path, SOUND)
    monkeypatch.chdir(tmp_path)
    config = read_experiment(None, {"methods": ("sft", "./mine.py")}, ["mine.batch_size=3"])
    assert (config.methods, config.plugins) == (("sft", "mine"), (str(path),))
    assert config.overrides_of("mine") == {"batch_size": 3}
    assert ExperimentConfig.model_validate(config.model_dump(mode="json")) == config
    staged = read_experiment(None, {"methods": ("sft+./mine.py",)})
    assert (staged.methods, staged.plugins) == (("sft+mine",), (str(path),))
    assert read_experiment(None, {}).plugins == ()


def test_paths_in_an_experiment_file_start_at_its_folder(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    path = write(tmp_path / "there", SOUND)
    toml = tmp_path / "there" / "experiment.toml"
    toml.write_text('methods = ["./mine.py"]\n[method.mine]\nbatch_size = 7\n')
    monkeypatch.chdir(tmp_path)
    config = read_experiment(toml, {})
    assert config.plugins == (str(path),) and config.overrides_of("mine") == {"batch_size": 7}
    again = read_experiment(toml, {"methods": ("there/mine.py",)})
    assert again == config
    toml.write_text('plugins = ["mine.py"]\nmethods = ["few"]\n[variant.few]\nmethod = "mine"\nbatch_size = 2\n')
    varied = read_experiment(toml, {})
    assert varied.plugins == (str(path),) and varied.overrides_of("few") == {"batch_size": 2}


def test_two_files_of_one_name_end_in_one_line(tmp_path):
    (tmp_path / "other").mkdir()
    one, two = write(tmp_path, SOUND), write(tmp_path / "other", SOUND)
    with pytest.raises(BenchError, match="would both be named 'mine'; rename one of them"):
        read_experiment(None, {"methods": (str(one), str(two))})


def test_the_settings_of_a_file_are_listed(tmp_path):
    result = CliRunner().invoke(main, ["list", "--config", str(write(tmp_path, SOUND))])
    assert result.exit_code == 0 and "mine.batch_size = 4" in result.output.splitlines()


def test_what_the_embedded_world_sets_stands_beside_the_default():
    result = CliRunner().invoke(main, ["list", "--config", "sft"])
    assert result.exit_code == 0 and any(
        s.startswith("sft.lr = 2e-05 (on tiny-sd3: 0.0003)  ") for s in result.output.splitlines()
    )


@pytest.fixture
def experiment(world, tmp_path):
    """Runs files beside sft on the fakes; returns the outcome."""

    def run(*paths: Path, **changes):
        names = tuple(plugins.register(path) for path in paths)
        values = dict(methods=(*names, "sft"), subsets=("half",), budget="steps=3", evaluations=1, plugins=paths)
        values |= dict.fromkeys(("backbone", "corpus", "suite"), "fake") | {"method": {"sft": {"batch_size": 4}}}
        values["plugins"] = tuple(map(str, paths))
        config = ExperimentConfig(**values | changes)
        registry.ADDED.clear()  # as in a worker, which is told of the files by the configuration alone
        registry.table.cache_clear()
        return run_experiment(config, Workspace(tmp_path / "cache", tmp_path / "runs"), Progress(quiet=True))

    with fakes.registered(world.backbone):
        yield run


def job_record(outcome, method: str):
    return records.read_json(outcome.folder / f"{method}--half--s0" / "job.json")


def test_a_run_trains_a_file_and_records_where_it_came_from(experiment, tmp_path):
    path = write(tmp_path, SOUND)
    outcome = experiment(path)
    assert outcome.failed == {}
    origin = {"file": "mine.py", "sha256": hashlib.sha256(SOUND.encode()).hexdigest()}
    assert job_record(outcome, "mine")["origin"] == origin and job_record(outcome, "sft")["origin"] == "built-in"
    assert records.read_json(outcome.folder / "config.json")["plugins"] == [str(path)]
    write(tmp_path, SOUND + "# changed\n")
    said = r"mine--half--s0 was run with another configuration \(another method's file or package\)"
    with pytest.raises(BenchError, match=said) as caught:
        experiment(path)
    assert "\n" not in str(caught.value)
    write(tmp_path, SOUND)
    (tmp_path / "moved").mkdir()
    assert experiment(write(tmp_path / "moved", SOUND)).failed == {}  # the same file elsewhere is the same method


def test_a_file_that_changed_is_refused_as_a_stage_too(experiment, tmp_path):
    path = write(tmp_path, SOUND)
    assert experiment(path, methods=("sft+mine",), budget="steps=4").failed == {}
    write(tmp_path, SOUND + "# changed\n")
    with pytest.raises(BenchError, match=r"sft\+mine--half--s0 was run with another configuration \(other stages\)"):
        experiment(path, methods=("sft+mine",), budget="steps=4")


def test_a_file_that_failed_at_once_is_mended_and_runs_in_the_same_folder(experiment, tmp_path):
    path = write(tmp_path, changed(LOSS, "loss = velocity.nothing()"))
    assert list(experiment(path).failed) == ["mine--half--s0"]
    write(tmp_path, SOUND)
    outcome = experiment(path)
    assert outcome.failed == {}
    assert job_record(outcome, "mine")["origin"]["sha256"] == hashlib.sha256(SOUND.encode()).hexdigest()


def test_another_name_for_the_one_method_is_no_second_method(tmp_path):
    assert plugins.register(write(tmp_path, SOUND + "\n\nMETHOD = Plain\n")) == "mine"


def test_a_path_of_a_user_who_is_not_there_ends_in_one_line():
    with pytest.raises(BenchError, match=r"the path ~nobody-of-that-name/m\.py begins with a user who is not there"):
        plugins.named("~nobody-of-that-name/m.py")


def test_a_job_recorded_before_origins_were_is_taken_up(experiment, tmp_path):
    path = write(tmp_path, SOUND)
    folder = experiment(path).folder / "mine--half--s0"
    record = records.read_json(folder / "job.json")
    del record["origin"]
    records.write_json(folder / "job.json", record)
    assert experiment(path).failed == {}


# -- bad input of a real run -------------------------------------------------------------------------------------------

RUNS = {  # "{text}" stands for the place of the line that holds the text
    "raises": (
        changed(LOSS, "loss = velocity.nothing()"),
        "{velocity.nothing()}: AttributeError: 'Tensor' object has no attribute 'nothing' (see traceback.txt)",
    ),
    "several lines": (
        changed(LOSS, 'raise RuntimeError("one\\nand two")'),
        "{raise RuntimeError}: RuntimeError: one and two (see traceback.txt)",
    ),
    "nan": (changed(LOSS, LOSS + ' * float("nan")'), "the loss is nan at step 1"),
    "never updates": (changed(UPDATE, ""), "the method never called job.update() in its 3 steps: it learned nothing"),
    "undeclared": (
        changed("Needs(pairs=True)", "Needs(prompts=True)"),
        "{in job.pairs}: the method asked for training pairs but did not declare needs.pairs",
    ),
    "trains nothing": (
        changed("job.train_full(**self.config.adamw())", "pass"),
        "the method's setup chose nothing to train",
    ),
    "exits": (changed(LOSS, "raise SystemExit(3)"), "{raise SystemExit}: SystemExit: 3 (see traceback.txt)"),
    "raises when it is made": (
        changed(UPDATE, UPDATE, "\n    def __init__(self, config):\n        super().__init__(config)\n        1 / 0\n"),
        "{1 / 0}: ZeroDivisionError: division by zero (see traceback.txt)",
    ),
    "raises in state_dict": (
        changed(UPDATE, UPDATE, "\n    def state_dict(self):\n        return 1 / 0\n"),
        "{return 1 / 0}: ZeroDivisionError: division by zero (see traceback.txt)",
    ),
    "undeclared gradient": (
        changed(UPDATE, "        job.differentiable_reward(torch.zeros(1, 3, 4, 4), [None])\n" + UPDATE).replace(
            "Needs(pairs=True)", "Needs(pairs=True, reward=True)"
        ),
        "{job.differentiable_reward}: the method asked for a reward's gradient but did not declare "
        "needs.differentiable_reward",
    ),
}


@pytest.mark.parametrize("what", RUNS)
def test_a_broken_plugin_fails_its_job_in_one_line_and_the_others_go_on(experiment, tmp_path, what):
    source, reason = RUNS[what]
    path = write(tmp_path, source)
    reason = re.sub(r"^{(.*)}", lambda found: f"{path}:{line_of(source, found[1])}", reason)
    outcome = experiment(path)
    assert outcome.failed == {"mine--half--s0": reason}
    status = read_status(outcome.folder / "mine--half--s0")
    assert (status["status"], status["reason"]) == ("failed", reason) and "\n" not in reason
    assert read_status(outcome.folder / "sft--half--s0")["status"] == "finished"


def test_a_plugin_that_overspends_fails_its_job_and_the_others_go_on(experiment, world, tmp_path):
    source = changed("job.pairs(self.config.batch_size)", "job.pairs(4 if job.step < 2 else 100)")
    job = world.job()
    job.train_full(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0)
    (one,) = job.pairs(1)
    job.policy.velocity(one.latents, 0.5, one.text)
    outcome = experiment(write(tmp_path, source), budget=f"flops={13 * job.meter.flops}")
    (reason,) = outcome.failed.values()
    assert list(outcome.failed) == ["mine--half--s0"] and "\n" not in reason
    assert reason.startswith("the method overspent: step 3 cost ") and reason.endswith("% of the budget is spent")


REWARDED = changed("Needs(pairs=True)", "Needs(pairs=True, prompts=True, reward=True)").replace(
    UPDATE,
    UPDATE
    + "        batch = job.prompts(2)\n"
    + "        with torch.no_grad():\n"
    + '            images = job.decode(job.noise(batch, "start"))\n'
    + '        job.log("reward", job.reward(images, batch.prompts).sum(), 2)\n',
)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([float("nan"), 0.5], "the reward brightness returned NaN or infinity"),
        ([0.5], "the reward brightness returned shape (1,) for 2 images"),
        ([[0.5], [0.5]], "the reward brightness returned shape (2, 1) for 2 images"),
    ],
)
def test_a_broken_reward_fails_the_job_that_asked_for_it(experiment, tmp_path, monkeypatch, values, says):
    usual = Brightness.score
    monkeypatch.setattr(
        Brightness,
        "score",
        lambda self, images, prompts: values if len(images) == 2 else usual(self, images, prompts),
    )
    outcome = experiment(write(tmp_path, REWARDED))
    assert outcome.failed == {"mine--half--s0": says}
    assert read_status(outcome.folder / "sft--half--s0")["status"] == "finished"


@pytest.mark.parametrize("values", [None, ["a", "b"], [[0.5], [0.5]]])
def test_a_reward_that_never_gives_numbers_fails_its_job_and_leaves_its_column_open(
    experiment, tmp_path, monkeypatch, values
):
    monkeypatch.setattr(Brightness, "score", lambda self, images, prompts: values)
    outcome = experiment(write(tmp_path, REWARDED), subsets=("all",))
    assert list(outcome.failed) == ["mine--all--s0"]
    assert outcome.failed["mine--all--s0"].startswith("the reward brightness returned ")
    assert read_status(outcome.folder / "sft--all--s0")["status"] == "finished"


def test_needs_that_cannot_be_told_end_in_one_line(experiment, tmp_path):
    source = changed(
        UPDATE, UPDATE, "\n    @classmethod\n    def needs_of(cls, config):\n        return config.nothing\n"
    )
    path = write(tmp_path, source)
    with pytest.raises(BenchError) as caught:
        experiment(path)
    assert str(caught.value).startswith(f"{path}:{line_of(source, 'config.nothing')}: mine.needs_of raises Attribute")
    assert "\n" not in str(caught.value)


# -- an installed package ----------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path) -> Path:
    """A folder with a distribution that brings a method, a metric and a subset, as an installer would leave it."""
    site = tmp_path / "site"
    package, info = site / "far_away", site / "far_away-1.2.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text('"""Far away."""\n')
    (package / "method.py").write_text(SOUND)
    (package / "metric.py").write_text(
        '"""Far metrics."""\n\nfrom bench.metric import Metric\n\n\nclass Redness(Metric):\n    """Mean of red."""\n\n'
        '    name, label, version = "redness", "Redness", 1\n\n    def score(self, images, prompts):\n'
        "        return [float(image[..., 0].mean()) for image in images]\n"
    )
    (package / "subset.py").write_text(
        '"""Far subsets."""\n\nfrom bench.corpus import Subset\n\n'
        'BRIGHT = Subset("bright", role="aesthetic", threshold=0.4)\n'
        '"""Bright pictures."""\n'
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: far-away\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[bench.methods]\nfar = far_away.method:Plain\nlost = nowhere_at_all.method:Plain\n"
        "[bench.metrics]\nredness = far_away.metric:Redness\n[bench.subsets]\nbright = far_away.subset:BRIGHT\n"
    )
    return site


def bench(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=site.parent,
        env=os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "BENCH_CACHE": str(site.parent / "cache")},
    )


def test_an_installed_package_is_listed_with_what_it_brings(installed):
    done = bench(installed, "list")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert {"far Flow matching.", "redness Mean of red.", "bright Bright pictures.", "lost (not importable)"} <= set(
        lines
    )


FAKE_RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {support!r})
import fakes
from bench.backbone.loader import Backbone
from bench.experiment.config import ExperimentConfig
from bench.experiment.run import Workspace, run_experiment
from bench.machine.progress import Progress
from bench.report import render_report

here = Path({here!r})
same = dict.fromkeys(("backbone", "corpus", "suite"), "fake")
with fakes.registered(Backbone(fakes.spec(Path({pipeline!r})))):
    config = ExperimentConfig(
        name="far", methods=("far",), subsets=("bright",), reward="redness", budget="steps=2", evaluations=1, **same
    )
    outcome = run_experiment(config, Workspace(here / "cache", here / "runs"), Progress(quiet=True))
assert outcome.failed == {{}}, outcome.failed
render_report([outcome.folder], here / "report")
"""


def test_an_installed_package_runs_and_is_reported_like_a_built_in(installed, tiny_pipeline):
    here, support = installed.parent, Path(fakes.__file__).parent
    code = FAKE_RUN.format(support=str(support), here=str(here), pipeline=str(tiny_pipeline))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = records.read_json(here / "runs" / "far" / "far--bright--s0" / "job.json")
    assert record["origin"] == {"package": "far-away", "version": "1.2"} and record["subset_count"] == 12
    assert "far" in (here / "report" / "main_results.md").read_text()


def test_a_file_that_is_installed_too_is_the_installed_method(installed, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(installed)
    registry.table.cache_clear()
    assert plugins.named(str(write(tmp_path, SOUND, "far"))) == "far"
    assert plugins.origin("far") == {"package": "far-away", "version": "1.2"}
    assert "that is another method" in refusal(write(tmp_path, SOUND + "# other\n", "far"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "far_away"]:
        del sys.modules[name]


def test_a_package_that_raises_on_import_ends_in_one_line(installed, monkeypatch):
    monkeypatch.syspath_prepend(installed)
    registry.table.cache_clear()
    (installed / "far_away" / "method.py").write_text("1 / 0\n")
    with pytest.raises(BenchError, match=r"methods/far .* does not load: ZeroDivisionError: division by zero$"):
        registry.load("methods", "far")
    for name in [name for name in sys.modules if name.partition(".")[0] == "far_away"]:
        del sys.modules[name]


NO_METHOD = {
    "needs": (SOUND.replace("    needs = Needs(pairs=True)\n", ""), "Plain.needs is None; it must be Needs(…)"),
    "traits": (SOUND.replace('    traits = Traits(*["-"] * 8)\n', ""), "Plain.traits is None; it must be Traits(…)"),
    "config": (SOUND.replace("    Config = PlainConfig\n", ""), "Plain.Config is None; it must be a subclass of"),
    "abstract": (SOUND.replace("def setup", "def sett"), "Plain does not define setup"),
    "other class": (SOUND.replace("(PostTrainingMethod)", ""), "Plain is no subclass of bench.method.Post"),
    "function": ("def Plain(config):\n    pass\n", "Plain is no subclass of bench.method.PostTrainingMethod"),
}


@pytest.mark.parametrize("what", NO_METHOD)
@pytest.mark.parametrize("command", ["run", "run --dry-run", "tune", "list --config far"])
def test_an_installed_class_that_is_no_method_ends_in_one_line(installed, monkeypatch, command, what):
    source, says = NO_METHOD[what]
    monkeypatch.syspath_prepend(installed)
    registry.table.cache_clear()
    (installed / "far_away" / "method.py").write_text(source)
    places = [f"--{place}={installed.parent / place}" for place in ("cache", "runs", "reports")]
    given = [] if command.startswith("list") else ["--methods", "far", *places]
    result = CliRunner().invoke(main, [*command.split(), *given])
    for name in [name for name in sys.modules if name.partition(".")[0] == "far_away"]:
        del sys.modules[name]
    line = f"methods/far (far_away.method:Plain): {says}"
    assert result.exit_code == 1 and result.output.startswith(f"bench: {line}"), result.exception
    assert result.output.count("\n") == 1


def test_a_reward_of_numpy_numbers_is_taken(world):
    """What strangers' metrics return: an array, not a list."""
    numbers = type("Array", (Brightness,), {"score": lambda self, images, prompts: np.full(len(images), 0.5)})
    job = world.job(reward=numbers())
    assert job.reward(np.zeros((2, 4, 4, 3), np.uint8), [None, None]).tolist() == [0.5, 0.5]


def test_a_plus_in_a_path_is_part_of_it():
    assert plugins.stages_of("sft+/data/c++/mine.py+soar") == ["sft", "/data/c++/mine.py", "soar"]
    assert plugins.stages_of("soar+flow_grpo") == ["soar", "flow_grpo"]
    assert plugins.stages_of("./mine.py") == ["./mine.py"]
