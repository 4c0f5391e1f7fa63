"""A few hundred bad inputs over all commands: each ends in one line and a status that is not 0, and never a traceback.

What would take long is replaced: nothing trains, draws or downloads here, since nothing of this kind may begin.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bench.cli import main
from bench.errors import BenchError
from bench.machine.environment import GROUP, HUB, check_group

DIGITS = "1" * 5000
DEEP = "[" * 3000 + "]" * 3000


@pytest.fixture(autouse=True)
def nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, and fail loudly where a bad input passes the door."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_CACHE", raising=False)
    (tmp_path / "a-file").write_text("text")
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("not/there")

    def begun(*arguments: Any, **options: Any) -> None:
        raise AssertionError("it began")

    monkeypatch.setattr("bench.experiment.run.run_experiment", begun)
    monkeypatch.setattr("bench.launch.processes.run_processes", begun)
    monkeypatch.setattr("bench.evaluate.rows.evaluate", begun)
    monkeypatch.setattr("bench.assets.download.fetch", begun)
    for recipe in ("vae", "policy"):
        monkeypatch.setattr(f"bench.backbone.pretrain.recipes.{recipe}", begun)
    yield


def one_line(result: Result, says: str = "") -> str:
    """The one line of an error; fails where there is a traceback, none or several, or a control character."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"a traceback: {result.exception!r}") from result.exception
    assert result.exit_code != 0, f"accepted: {result.output}"
    lines = [line for line in result.stderr.splitlines() if line.startswith(("bench: ", "Error: "))]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ") or result.stderr.splitlines()[-1] == lines[0], result.stderr
    assert len(lines[0]) < 1200 and not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", lines[0]), lines[0]
    assert re.search(says, lines[0]), lines[0]
    return lines[0]


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


NUMBERS = ("", "x", "1.5", "nan", "inf", "-inf", "1e400", DIGITS, "0x10", "1\x1b[31m2", "-1", "0")
COUNTS = {
    "run": ("--evaluations", "--micro-batch", "--evaluation-batch", "--max-sequence-length", "--resolution", "--gpus"),
    "tune": ("--trials", "--micro-batch", "--resolution"),
    "evaluate tiny-sd3": ("--limit", "--repeats", "--evaluation-batch", "--max-sequence-length"),
    "curate": ("--resolution",),
    "pretrain": ("--steps",),
}


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, options in COUNTS.items() for option in options]
)
def test_a_count_is_a_whole_number_in_bounds(command: str, option: str) -> None:
    for value in (*NUMBERS, "1000000000000", str(2**63), str(-(2**63))):
        one_line(bench(*command.split(), option, value))


REALS = (
    ("run --dry-run", "--utilisation"),
    ("run --dry-run", "--peak-tflops"),
    ("curate", "--quantile"),
)


@pytest.mark.parametrize(("command", "option"), REALS)
def test_an_amount_is_a_finite_number_in_bounds(command: str, option: str) -> None:
    for value in ("", "x", "nan", "inf", "-inf", "1e400", DIGITS, "-1", "0", "1e9"):
        one_line(bench(*command.split(), option, value))


@pytest.mark.parametrize("value", ["x", "nan", "inf", "1e400", ""])
def test_a_threshold_is_a_finite_number(value: str) -> None:
    one_line(bench("curate", "--threshold", value))


@pytest.mark.parametrize("seeds", ["", ",", "x", "1.5", "1,", DIGITS, str(2**63), str(-(2**63)), "1,1", "nan"])
def test_seeds_are_whole_numbers_of_64_bits_each_once(seeds: str) -> None:
    one_line(bench("run", f"--seeds={seeds}"))


@pytest.mark.parametrize(
    "budget", ["", "steps", "steps=", "steps=nan", "steps=inf", "steps=0", "steps=-1", "steps=1e10", f"flops={DIGITS}",
               "step=1", "updates=1e300", "device-seconds=1e12"],
)  # fmt: skip
def test_a_budget_is_finite_and_bounded(budget: str) -> None:
    one_line(bench("run", f"--budget={budget}"))


@pytest.mark.parametrize(
    "scales", ["", "0", "-1", "nan", "inf", "1,1", "x", DIGITS, "1e9", ",".join(map(str, range(1, 102)))]
)
def test_guidance_takes_a_few_positive_numbers(scales: str) -> None:
    one_line(bench("evaluate", "tiny-sd3", f"--guidance={scales}"))


@pytest.mark.parametrize("shard", ["", "1", "0/1", "2/1", "1/0", "-1/2", "1/2/3", "a/b", f"1/{DIGITS}", "1/1000000000"])
def test_a_shard_is_one_of_a_few(shard: str) -> None:
    one_line(bench("curate", f"--shard={shard}"))


SETTINGS = (
    "sft.lr=inf", "sft.lr=-inf", "sft.lr=nan", 'sft.lr="nan"', 'sft.lr="inf"', "sft.lr=1e400", f"sft.lr={DIGITS}",
    f"sft.batch_size={DIGITS}", "sft.batch_size=1e11", "sft.batch_size=100000000000", "sft.batch_size=0",
    "sft.betas=[0.9, nan]", "sft.betas=[inf, 0.9]", f"sft.lr={DEEP}", f"sft.betas={DEEP}", "sft.lr=[]", "sft.lr={}",
    "sft.lr={a = inf}", "sft.lr=\x00", "sft.lr=\ud800", "sft.=1", ".lr=1", "sft.lr", "", "=", "sft.nothing=1",
    "high_aesthetic.quantile=nan", "high_aesthetic.threshold=inf", "high_aesthetic.pairs=1e30",
    "high_aesthetic.quantile=[[[[]]]]", "sft.ema_every=1000000000",
)  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS, ids=range(len(SETTINGS)))
def test_a_setting_is_a_finite_bounded_value(setting: str, tmp_path: Path) -> None:
    from bench.experiment.config import method_config, read_experiment
    from bench.plugins import load

    with pytest.raises(BenchError) as caught:
        config = read_experiment(None, {"methods": ("sft",)}, [setting])
        method_config(load("sft"), "embedded", config.overrides_of("sft"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1200


PLUGIN = """
from bench.method import MethodConfig, Needs, PostTrainingMethod, Traits
from typing import Any
class Part(MethodConfig):
    rate: float = 1.0
class Config(MethodConfig):
    lr: float = 1.0
    many: int = 1
    rates: tuple[float, ...] = ()
    part: Part = Part()
    anything: Any = None
class Mine(PostTrainingMethod):
    "One of a user."
    Config = Config
    needs = Needs(pairs=True)
    traits = Traits("", "", "", "", "", "", "", "")
    def setup(self, job): raise AssertionError("it began")
    def step(self, job): raise AssertionError("it began")
"""


@pytest.mark.parametrize(
    "setting", ["lr=inf", "lr=nan", 'lr="nan"', "many=1e11", "rates=[1.0, inf]", "part={rate = nan}",
                'part={rate = "inf"}', "anything=inf", "anything=[{a = nan}]", f"anything={DIGITS}"],
)  # fmt: skip
def test_a_plugin_that_states_no_bounds_is_bounded_too(setting: str, tmp_path: Path) -> None:
    (tmp_path / f"mine_{os.getpid()}.py").write_text(PLUGIN)
    one_line(bench("check", f"./mine_{os.getpid()}.py", "--set", setting))


def test_a_plugin_keeps_its_own_bound_and_its_default() -> None:
    from pydantic import Field

    from bench.method import MethodConfig

    class Config(MethodConfig):
        wide: int = Field(1, le=10**9)
        large: int = 10**7

    assert Config(wide=10**8, large=10**7).wide == 10**8
    with pytest.raises(ValueError, match="at most 10000000"):
        Config(large=10**7 + 1)


TOMLS = {
    "deep arrays": f"seeds = {DEEP}",
    "deep tables": f"[method.sft]\nx = {'{a = ' * 400}1{'}' * 400}",
    "dotted keys": f"method.{'a.' * 900}b = 1",
    "digits": f"seeds = [{DIGITS}]",
    "inf": "[method.sft]\nlr = inf",
    "nan": "[subset.high_aesthetic]\nthreshold = nan",
    "nul": 'corpus = "a\\u0000b"',
    "no toml": "=",
    "no text": "\udcff",
    "types": 'seeds = "0"',
    "list of tables": "[[method]]\nname = 1",
    "unknown": "sedes = [1]",
    "name": 'name = "../x"',
    "long name": f'name = "{"x" * 300}"',
    "evaluations": "evaluations = 1000000000",
    "methods": 'methods = ["a--b"]',
    "empty method": 'methods = [""]',
    "size": 'text_cache_limit = "1e9 GB"',
    "large size": f'text_cache_limit = "{DIGITS}GB"',
    "split": '[pipeline."sft+soar"]\nsplit = [nan, 0.5]',
    "date": "seeds = [2020-01-01]",
}


@pytest.mark.parametrize("text", TOMLS.values(), ids=TOMLS)
def test_an_experiment_file_is_read_or_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    one_line(bench("run", str(path)))
    one_line(bench("tune", str(path)))


@pytest.mark.parametrize(
    "text", [f"processes = {DEEP}", "processes = 100000", "poll_seconds = nan", "poll_seconds = inf", "nodes = 1e10",
             "=", f"time_minutes = {DIGITS}", "sbatch = 1", "[sbatch]\narray = 1", "setup = [1]", "\udcff", "wait = 2",
             f"[sbatch]\nqos = {DEEP}"],
    ids=range(13),
)  # fmt: skip
def test_a_launcher_file_is_read_or_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "launch.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    one_line(bench("run", "--launcher", "accelerate", "--launch-file", str(path)))


@pytest.mark.parametrize("option", ["--processes", "--nodes", "--gpus-per-node", "--minutes"])
def test_what_a_launcher_takes_is_bounded(option: str) -> None:
    for value in ("x", "-1", "1000000000", DIGITS, "1.5", "nan"):
        one_line(bench("run", "--launcher", "accelerate", option, value))


def test_a_machine_without_gpus_starts_no_hundreds_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for command in (["run"], ["evaluate", "tiny-sd3"]):
        for value in ("1000", "100000"):
            one_line(bench(*command, "--launcher", "accelerate", "--processes", value), "processes")


UNREAD = {
    "run --processes 2": "--launcher local does not read --processes; take --launcher accelerate or slurm, or leave",
    "run --minutes 5": "--launcher local does not read --minutes; take --launcher slurm, or leave",
    "run --no-wait": "--launcher local does not read --wait",
    "run --launcher accelerate --partition gpu": "--launcher accelerate does not read --partition; take",
    "run --sbatch qos=high": "--launcher local does not read --sbatch",
    "tune --methods sft --gpus-per-node 8": "--launcher local does not read --gpus-per-node",
    "run --launch-file a-file": "--launcher local reads no --launch-file",
    "evaluate tiny-sd3 --processes 2": "--launcher local does not read --processes; take --launcher accelerate, or",
    "list methods --config sft": "--config shows one method's settings, and KIND lists names",
    "pretrain --stage quality --steps 5": "--stage quality measures and trains nothing; leave --steps out",
    "run --gpus 8": "--gpus is an assumption of --dry-run alone; add --dry-run, or leave --gpus out",
    "run --peak-tflops 100": "--peak-tflops is an assumption of --dry-run",
    "evaluate tiny-sd3 --pairs a-folder": "--pairs says on which pairs probes are read; add --probes",
    "evaluate tiny-sd3 --all-pairs": "--all-pairs says on which pairs probes are read; add --probes",
    "evaluate tiny-sd3 --probes --pass score": "--pass score works on images alone, and probes read a model",
    "score a-folder --metrics ,": "--metrics takes names with commas between, not ','",
    "run --methods ,,": "--methods takes names with commas between",
    "tune --methods sft --launcher slurm --no-wait": "a search needs each trial's result before the next one",
    "tune --methods sft --guidance 2,2000": "Input should be less than or equal to 1000",
    f"tune --methods sft --name {'n' * 95}": "name: String should have at most 100 characters",
    f"tune --methods sft --seed {2**63 - 1}": "seeds",
    "tune --methods sft --space sft.lr=1e-4:1e-3 --space sft.lr=1e-5:1e-2": "--space names sft.lr twice",
    "evaluate tiny-sd3 --remedy epsilon_scaling=1.0,epsilon_scaling=1.00": "epsilon_scaling=1.0 is there twice",
}


@pytest.mark.parametrize("command", UNREAD)
def test_an_option_that_would_change_nothing_is_refused(command: str) -> None:
    assert UNREAD[command] in one_line(bench(*command.split()))


def test_a_plan_takes_the_launcher_that_will_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[int] = []
    monkeypatch.setattr("bench.rehearsal.ask.memory_of", lambda *arguments: None)
    monkeypatch.setattr("bench.plan.show.print_plan", lambda *places, gpus, **others: planned.append(gpus))
    options = ("--dry-run", "--gpus", "4", "--launcher", "slurm", "--partition", "gpu", "--processes", "2")
    assert bench("run", *options).exit_code == 0 and planned == [4]


NO_FOLDERS = ("a-file", "a-file/x", "loop", "loop/x", "x" * 300, "y/" * 3000, "", "nowhere/x", "nowhere")
FOLDER_OPTIONS = {
    "run": ("--cache", "--runs", "--reports"),
    "tune": ("--cache", "--runs", "--reports"),
    "evaluate tiny-sd3": ("--cache", "--runs", "--reports"),
    "curate": ("--cache",),
    "report a-folder": ("--out",),
    "pretrain": ("--out",),
    "new method my_method_of_tests": ("--out",),
    "export a-folder": ("--out",),
    "score a-folder": ("--cache",),
    "assets fetch drawbench_prompts": ("--cache",),
}


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, options in FOLDER_OPTIONS.items() for option in options]
)
def test_a_place_to_write_to_is_a_folder(command: str, option: str) -> None:
    for place in NO_FOLDERS:
        one_line(bench(*command.split(), option, place))
    one_line(bench(*command.split(), option, "a\x00b"))


NOT_READ = ("a-file", "a-file/x", "a-folder", "loop", "x" * 300, "y/" * 3000, "nowhere", "not-there", "", "a\x00b")
READING = {
    "report {}": ("a-file", "a-folder"),
    "score {}": (),
    "export {} --out out": (),
    "archive {} --out out.tar.xz": (),
    "run {}": (),
    "tune {}": (),
    "run --launcher accelerate --launch-file {}": (),
    "run --tuned {}": (),
    "tune --methods sft --prompts {}": (),
    "check ./{}.py": (),
    "run --methods ./{}.py": (),
    "assets fetch drawbench_prompts --from {}": (),
    "report {}.tar.xz": (),
}


@pytest.mark.parametrize("command", READING)
def test_a_place_to_read_from_is_what_it_has_to_be(command: str) -> None:
    for place in NOT_READ:
        if (place == "" and ("--tuned" in command or "--prompts" in command)) or (place, command[-12:]) == (
            "a-file",
            "--prompts {}",
        ):
            continue  # names no file; holds a prompt
        one_line(bench(*(part.replace("{}", place) for part in command.split())))


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", ".x", "x" * 101, "a b", "-x", "a\nb", "\x1b[31m", "\udcff"])
def test_the_name_of_a_run_leads_nowhere(name: str, tmp_path: Path) -> None:
    for command in (["run"], ["tune", "--methods", "sft"], ["evaluate", "tiny-sd3"]):
        one_line(bench(*command, f"--name={name}"), "holds letters, digits|at most 100 characters|no record can hold")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-file", "a-folder", "loop", "nowhere"]


@pytest.mark.parametrize("variable", GROUP)
@pytest.mark.parametrize("value", ["abc", "1.5", "-7", DIGITS, " ", "1e3", "999999999"])
def test_a_variable_of_torchrun_is_a_number_in_bounds(variable: str, value: str, monkeypatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BenchError, match=f"^the environment variable {variable} is .*; set it right or unset it$"):
        check_group()


@pytest.mark.parametrize(
    "variables", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "2"}, {"RANK": "1", "WORLD_SIZE": "1"},
                  {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, {"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}],
)  # fmt: skip
def test_the_variables_of_a_group_agree(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GROUP:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BenchError, match=r"RANK|WORLD_SIZE"):
        check_group()


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_CPU", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"])
def test_a_variable_of_accelerate_that_means_nothing_is_named(variable: str, monkeypatch) -> None:
    from accelerate.state import AcceleratorState, PartialState

    from bench.machine.engine import Engine

    monkeypatch.setenv(variable, "bogus")
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        with pytest.raises(BenchError, match=rf"the environment .* {variable}"):
            Engine.from_environment()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()


@pytest.mark.parametrize("variable", HUB)
def test_a_variable_of_the_hub_that_means_nothing_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "soon")
    one_line(bench("list"), variable)


def test_a_drawing_backend_that_is_none_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "bogus")
    assert bench("list").exit_code == 0
    assert os.environ["MPLBACKEND"] == "agg"


RECORDS = {
    "no object": [],
    "version": {"v": 2},
    "no version": {},
    "jobs outside": {"jobs": ["../../../x--y--s0"]},
    "jobs elsewhere": {"jobs": ["/etc--y--s0"]},
    "jobs no list": {"jobs": {"a": 1}},
    "jobs of numbers": {"jobs": [1]},
    "suite": {"suite": []},
    "no metrics": {"suite": {"name": "embedded", "version": 1, "metrics": [], "sampler": {}}},
}


@pytest.mark.parametrize("content", RECORDS.values(), ids=RECORDS)
@pytest.mark.parametrize(
    "command", ["report run", "score run", "export run --out out", "export run/a--b--s0 --out out", "evaluate run",
                "archive run --out out.tar.xz"],
)  # fmt: skip
def test_a_record_that_is_none_is_refused_and_not_rewritten(command: str, content: Any, tmp_path: Path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run" / "experiment.json"
    path.parent.mkdir()
    (path.parent / "a--b--s0").mkdir()
    whole = {
        "v": 1,
        "name": "run",
        "notice": "",
        "jobs": [],
        "suite": {
            "name": "embedded",
            "version": 1,
            "sampler": {"steps": 1, "guidance_scale": 1.0, "resolution": 64},
            "metrics": [],
        },
    }
    text = json.dumps(whole | content if isinstance(content, dict) and content else content)
    path.write_text(text)
    one_line(bench(*command.split()))
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text", [DEEP, '{"a": ' * 3000 + "1" + "}" * 3000, f'{{"v": {DIGITS}}}', '{"v": NaN}', '{"v": 1e999}', "\x00", ""]
)
def test_json_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.json").write_text(text)
    for command in ("report run", "score run", "export run --out out", "archive run --out out.tar.xz"):
        one_line(bench(*command.split()), "experiment.json")


def test_an_escape_sequence_in_a_path_is_shown_and_not_obeyed() -> None:
    line = one_line(bench("report", "\x1b]0;title\x07\x1b[31mrun\u202e"))
    assert r"\x1b]0;title\x07\x1b[31mrun\u202e" in line


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--tuned", ""],
        ["run", "--corpus", ""],
        ["run", "--reward", ""],
        ["run", "--methods", "sft", "--set", ""],
        ["tune", "--objective", ""],
        ["power", "a-folder", "--difference", "1", "--methods", ""],
        ["power", "a-folder", "--difference", "1", "--metric", ""],
        ["curate", "--corpus", ""],
        ["evaluate", ""],
        ["new", "method", ""],
        ["assets", "fetch", ""],
    ],
)
def test_an_empty_text_is_no_value(command: list[str]) -> None:
    """A shell gives one for a variable that is not set."""
    one_line(CliRunner().invoke(main, command), "it is empty|names no file")


def test_a_corpus_without_a_name_is_refused_in_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('corpus = ""')
    one_line(CliRunner().invoke(main, ["run", "mine.toml"]), "corpus: ")


def test_a_folder_is_no_method(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    one_line(
        CliRunner().invoke(main, ["list", "--config", "./mine"]),
        "is a folder; name the method's file, such as .*mine.py",
    )


def test_an_empty_context_takes_away_what_an_experiment_names() -> None:
    done = CliRunner().invoke(main, ["run", "paper_main", "--context", "", "--dry-run"])
    assert done.exit_code == 0 and "black-forest-labs" not in done.output, done.output
    assert "black-forest-labs" in CliRunner().invoke(main, ["run", "paper_main", "--dry-run"]).output
