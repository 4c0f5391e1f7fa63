"""The noise file of a suite, and the designs that see a difference."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_run import FakeRun

from bench import records
from bench.cli import main
from bench.errors import BenchError
from bench.records.archive import unpacked
from bench.records.schema import ExperimentRecord
from bench.report import power
from bench.report.components import Components, divided
from bench.report.intervals import smallest
from bench.report.power import Costs, Design
from bench.report.seed_noise import MetricNoise, beside, given, mismatch, of_metric, read
from bench.report.study import Evaluation, StudiedJob, Study, read_studies, read_study

NOISE = MetricNoise(
    version=1, mean=0.5, low=0.0, high=1.0, binary=False, groups=[10, 40], repeats=2, prompt=1.0, prompt_noise=0.1,
    residual=0.2, seed_prompt=0.05, seed_shift=0.01, method_prompt=0.3, method_noise=0.04, df=12,
)  # fmt: skip


def test_the_variance_of_a_design_by_hand() -> None:
    """Two groups of 10 and 40 prompts count like (1/10 + 1/40) / 4 of one prompt; three seeds, two pictures."""
    size = (1 / 10 + 1 / 40) / 4
    expected = 2 * 0.01 / 3 + size * (2 * 0.05 / 3 + (0.04 + 2 * 0.2 / 3) / 2)
    assert power.variance(NOISE, Design(3, 50, 2)).value == pytest.approx(expected)
    assert power.variance(NOISE, Design(3, 50, 2), like=True).value == pytest.approx(expected + size * 0.3)
    halved = 2 * 0.01 / 3 + (expected - 2 * 0.01 / 3) / 2
    assert power.variance(NOISE, Design(3, 100, 2)).value == pytest.approx(halved)


def test_without_repeats_pictures_do_not_help_and_prompts_do() -> None:
    once = NOISE.model_copy(update={"repeats": 1, "method_noise": 0.0, "residual": 0.0})
    assert power.variance(once, Design(3, 50, 8)) == power.variance(once, Design(3, 50, 1))
    assert power.variance(once, Design(3, 400, 1)).value < power.variance(once, Design(3, 50, 1)).value


def test_designs_are_the_fewest_pictures_that_see_a_difference() -> None:
    wanted = 0.25
    for design in power.designs(NOISE, wanted, 0.8):
        assert smallest(power.variance(NOISE, design), 0.8) <= wanted
        if design.repeats > 1:
            fewer = Design(design.seeds, design.prompts, design.repeats // 2)
            assert smallest(power.variance(NOISE, fewer), 0.8) > wanted
    assert list(power.designs(NOISE, 1e-6, 0.8)) == []


def test_the_number_of_prompts_is_the_smallest_that_does() -> None:
    needed = power.prompts_needed(NOISE, 0.3, 0.8, 6, 2)
    assert needed is not None
    at, before = (smallest(power.variance(NOISE, Design(6, n, 2), like=True), 0.8) for n in (needed, needed - 1))
    assert at <= 0.3 < before
    assert power.prompts_needed(NOISE, 0.01, 0.8, 6, 2) is None  # the seed shift alone is more


def test_two_methods_cost_their_trainings_and_their_pictures() -> None:
    assert Costs(training=100, picture=0.5).of(Design(3, 50, 2)) == 2 * 3 * (100 + 50)


def test_only_the_trainings_of_the_methods_that_are_asked_for_are_paid(ranked) -> None:
    slow = ranked.job("slow", 0.1)
    clock = [{"step": step, "seconds": 400.0 * step, "peak_memory": 1} for step in range(1, 10)]
    ranked.lines(f"{slow}/clock.jsonl", clock)
    study = read_study([ranked.folder])
    every, two = power.costs([study]), power.costs([study], ["alpha", "beta_long"])
    seconds = {job.name: job.spent.seconds for job in study.jobs}
    assert every and two and every.picture == two.picture
    assert every.training == pytest.approx(sum(seconds.values()) / len(seconds))
    of_two = [value for name, value in seconds.items() if name.startswith(("alpha--", "beta_long--"))]
    assert two.training == pytest.approx(sum(of_two) / len(of_two)) and two.training < every.training
    assert power.costs([study], ["nobody"]) is None


def test_components_of_a_run_are_those_of_its_rows(ranked) -> None:
    file = power.measure([read_study([ranked.folder])])
    assert (file.suite, file.suite_version, file.backbone_hash) == ("embedded", 1, "0123456789abcdef")
    assert (file.rows, file.jobs, file.runs) == (3, 6, ["ranked"])
    geneval, ocr = file.metrics["geneval"], file.metrics["ocr"]
    assert (geneval.groups, geneval.repeats, geneval.binary) == ([4] * 6, 2, False)
    assert geneval.method_noise == pytest.approx(0, abs=2e-4)  # all rows share prompts and noise, and shift alike
    assert geneval.residual + geneval.seed_prompt == pytest.approx(0.04**2 / 12, rel=0.6)
    assert ocr.groups == [6]


def test_components_of_some_methods_are_those_of_their_rows_alone(ranked) -> None:
    """Of all rows the third one counts too; a run that never had it measures the same as the two."""
    study = read_study([ranked.folder])
    two = replace(study, jobs=tuple(job for job in study.jobs if job.method in ("alpha", "beta_long")))
    found = power.measure([study], ["alpha", "beta_long"])
    assert found == power.measure([two]) and found != power.measure([study])
    assert (found.rows, found.jobs) == (2, 4)
    with pytest.raises(BenchError, match=r"alhpa.*alpha"):
        power.measure([study], ["alhpa"])


def test_a_run_that_still_goes_on_is_measured_by_what_has_ended(ranked) -> None:
    whole = power.measure([read_study([ranked.folder])])
    methods = {name.partition("--")[0] for name in ranked.experiment["jobs"]}
    for method in methods:
        reward = "style" if method == "gamma" else None
        ranked.job(method, 0.1, seed=7, status="interrupted", fractions=[0.5], reward=reward)
    assert power.measure([read_study([ranked.folder])]) == whole


def test_the_shipped_file_is_what_the_committed_records_give() -> None:
    reference = Path(__file__).parents[3] / "reports" / "reference"
    with unpacked([reference / name / "records.tar.xz" for name in ("embedded", "repeats")]) as folders:
        made = power.measure(read_studies(folders))
    shipped = read(beside("embedded") or Path())
    assert made.metrics.keys() == shipped.metrics.keys()
    for name, metric in made.metrics.items():
        exact = {"groups", "low", "high", "binary"}
        numbers = [each.model_dump(exclude=exact) for each in (metric, shipped.metrics[name])]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-9)
        assert metric.model_dump(include=exact) == shipped.metrics[name].model_dump(include=exact)
    rest = {"metrics": {}}
    assert made.model_copy(update=rest) == shipped.model_copy(update=rest)


def test_one_seed_has_no_components(run) -> None:
    with pytest.raises(BenchError, match="no two rows of one subset of these runs have two finished seeds each"):
        power.measure([read_study([run.folder])])


def test_a_noise_file_of_another_suite_version_or_backbone_is_refused(ranked, tmp_path: Path) -> None:
    study = read_study([ranked.folder])
    file, path = power.measure([study]), tmp_path / "mine.json"
    records.write_record(path, file)
    assert given(path, study.experiment) == file
    for key, value, said in (
        ("suite", "other", "suite embedded, not other"),
        ("version", 2, "version of the suite 1, not 2"),
        ("backbone_hash", "ff", "backbone 0123456789ab, not ff"),
    ):
        other = study.experiment.model_dump()
        (other if key == "backbone_hash" else other["suite"]).update({"name" if key == "suite" else key: value})
        with pytest.raises(BenchError, match=said):
            given(path, ExperimentRecord.model_validate(other))
    averaged = study.experiment.model_copy(update={"average_half_life": 0.1})
    with pytest.raises(BenchError, match=r"is of the half-life 0, not 0\.1"):
        given(path, averaged)
    assert not mismatch(file, averaged.model_copy(update={"jobs": []}))  # what only evaluates does not know it
    assert of_metric(file, "geneval", 1) is not None
    assert of_metric(file, "geneval", 2) is None and of_metric(None, "geneval", 1) is None


def test_the_commands_say_what_it_takes_and_write_the_file(ranked, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["power", str(ranked.folder), "--difference", "0.05", "--metric", "geneval"])
    assert done.exit_code == 0, done.output
    assert "GenEval: a difference of 0.050 of two methods, 80% power" in done.output
    assert "this prompt list (24 prompts in 6 groups)" in done.output and "(cheapest)" in done.output
    done = CliRunner().invoke(main, ["power", str(ranked.folder), "--difference", "0.05", "--metric", "genevil"])
    assert done.exit_code == 1 and "unknown metric 'genevil'; did you mean 'geneval'?" in done.output
    target = tmp_path / "noise.json"
    done = CliRunner().invoke(main, ["noise", str(ranked.folder), "--out", str(target)])
    assert done.exit_code == 0 and target.is_file()
    assert "measured on ranked (6 trainings of 3 rows)" in done.output and "one picture" not in done.output


def test_noise_of_one_picture_a_prompt_is_said_to_count_as_prompts(tmp_path: Path) -> None:
    run = FakeRun(tmp_path / "once", repeats=1)
    run.base()
    command = ["noise", str(run.folder), "--out", str(tmp_path / "noise.json")]
    for seed in (0, 1):
        run.job("alpha", 0.1, seed=seed)
    done = CliRunner().invoke(main, command)  # one row does not say how rows differ
    assert done.exit_code == 1 and "run two methods or more with more seeds, e.g. --methods sft,soar" in done.output
    for seed in (0, 1):
        run.job("beta", 0.2, seed=seed)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    said = done.output.splitlines()[1]
    assert (
        said.startswith("GenEval, OCR, ClipScore and Aesthetic: one picture a prompt")
        and "`bench evaluate RUN --repeats 2` draws two" in said
    )


@pytest.fixture
def drawn_twice(tmp_path: Path) -> tuple[FakeRun, FakeRun]:
    """A run with one picture a prompt, and its trainings evaluated with two. Aesthetic looks at whole prompts."""
    trained, evaluated = FakeRun(tmp_path / "demo", repeats=1), FakeRun(tmp_path / "twice", repeats=2)
    trained.base()
    evaluated.experiment["suite"]["repeats"] = 2
    for key in ("backbone", "backbone_hash", "corpus", "budget", "fractions"):
        del evaluated.experiment[key]
    for each in (trained, evaluated):
        each.experiment["suite"]["metrics"][3]["per_prompt"] = True
        each.save()
    for method, gain in (("alpha", 0.1), ("beta", 0.2)):
        for seed in (0, 1):
            name = trained.job(method, gain, seed=seed)
            job = {"run": "demo", "method": method, "subset": "pretty", "seed": seed}
            evaluated.evaluated(f"demo-{name}", name, gain, job, kind="transformer", backbone_hash="0123456789abcdef")
    return trained, evaluated


def test_trainings_that_are_evaluated_with_more_pictures_tell_noise_from_prompts(drawn_twice) -> None:
    once, twice = (read_study([run.folder]) for run in drawn_twice)
    assert power.measure([once]).metrics["geneval"].row_noise_share is None
    file = power.measure([twice])
    assert (file.suite, file.backbone_hash, file.rows, file.jobs) == ("embedded", "0123456789abcdef", 2, 4)
    geneval = file.metrics["geneval"]
    assert (geneval.repeats, geneval.groups) == (2, [4] * 6)
    assert geneval.prompt_noise == pytest.approx(0.35**2 / 12, rel=0.5)  # a picture's, not that of two
    assert geneval.row_noise_share is not None and geneval.row_noise_share > 0.6  # scores share no prompt, only noise
    assert "style" not in file.metrics


def test_what_looks_at_whole_prompts_is_measured_on_the_suites_own_number_of_pictures(drawn_twice) -> None:
    once, twice = (read_study([run.folder]) for run in drawn_twice)
    alone, both = power.measure([once]), power.measure([once, twice])
    assert both.metrics["style"] == alone.metrics["style"]
    assert (both.runs, both.rows, both.jobs) == (["demo", "twice"], 2, 4)  # each training once


def test_a_run_says_how_much_there_is_and_more_pictures_say_of_what(drawn_twice) -> None:
    """A few trainings that are drawn again do not take the place of all that the run holds."""
    run, twice = drawn_twice
    for method, gain in (("gamma", 0.3), ("delta", -0.1)):
        for seed in (0, 1, 2):
            run.job(method, gain, seed=seed)
    for seed in (0, 1):
        job = {"run": "demo", "method": "gamma", "subset": "pretty", "seed": seed}
        name = f"gamma--pretty--s{seed}"
        twice.evaluated(f"demo-{name}", name, 0.3, job, kind="transformer", backbone_hash="0123456789abcdef")
    studies = [read_study([each.folder]) for each in drawn_twice]
    files = [power.measure(of) for of in (studies[:1], studies[1:], studies)]
    alone, more, both = (file.metrics["geneval"] for file in files)
    assert (files[2].rows, files[2].jobs) == (4, 10)
    assert (both.seed_shift, both.df, both.mean) == (alone.seed_shift, alone.df, alone.mean)
    assert both.repeats == 2
    for rest, noise in (("prompt", "prompt_noise"), ("seed_prompt", "residual"), ("method_prompt", "method_noise")):
        whole, of_noise = getattr(both, rest) + getattr(both, noise), getattr(both, noise)
        assert whole == pytest.approx(getattr(alone, rest))
        assert of_noise / whole == pytest.approx(getattr(more, noise) / (getattr(more, rest) + getattr(more, noise)))


def test_what_more_pictures_cannot_divide_counts_as_noise() -> None:
    once = Components(0.2, 0.0, 0.0, 0.1, 0.01, 0.05, 0.0, 4, 1)
    more = Components(0.3, 0.1, 0.06, 0.02, 0.0, 0.03, 0.0, 1, 2)
    found = divided(once, more, 2)
    assert (found.prompt, found.prompt_noise) == pytest.approx((0.15, 0.05))
    assert (found.seed_prompt, found.residual) == pytest.approx((0.025, 0.075))
    assert (found.method_prompt, found.method_noise) == (0.0, 0.05)  # of two rows, chance would decide
    assert divided(once, more, 3).method_prompt == pytest.approx(0.05)
    assert (found.seed_shift, found.seed_df, found.repeats) == (0.01, 4, 2)


def test_a_training_that_is_evaluated_under_two_names_is_refused(drawn_twice) -> None:
    _, twice = drawn_twice
    job = {"run": "demo", "method": "beta", "subset": "pretty", "seed": 1}
    twice.evaluated("copy", None, 0.2, job, kind="transformer", backbone_hash="0123456789abcdef")
    with pytest.raises(BenchError, match=r"evaluated--copy and .* are both seed 1 of beta in a run called demo"):
        power.measure([read_study([twice.folder])])


def test_a_training_in_two_folders_with_the_same_repeats_is_refused(drawn_twice) -> None:
    studies = [read_study([run.folder]) for run in drawn_twice]
    with pytest.raises(BenchError, match=r"two of these folders hold pictures of .*alpha--pretty--s0, seed 0 of alpha"):
        power.measure([*studies, studies[1]])


def test_seeds_that_are_evaluated_under_two_names_are_seeds_of_one_row(drawn_twice, tmp_path: Path) -> None:
    """Seed 0 in one folder and seed 1 in another: two machines drew them."""
    once, twice = (run.folder for run in drawn_twice)
    files = []
    for folders in ([once, twice], [once, twice, tmp_path / "more"]):
        if folders[-1].name == "more":
            folders[-1].mkdir()
            shutil.copy(twice / "experiment.json", folders[-1])
            for row in twice.glob("evaluated--*--s1"):
                row.rename(folders[-1] / row.name)
        target = tmp_path / f"{len(folders)}.json"
        done = CliRunner().invoke(main, ["noise", *map(str, folders), "--out", str(target)])
        assert done.exit_code == 0, done.output
        files.append(records.read_json(target)["metrics"])
    assert files[0]["geneval"]["repeats"] == 2
    assert files[0] == files[1]


def test_the_commands_take_an_evaluation_of_trainings(drawn_twice, tmp_path: Path) -> None:
    once, twice = (str(run.folder) for run in drawn_twice)
    target = str(tmp_path / "noise.json")
    done = CliRunner().invoke(main, ["noise", twice, "--out", target])
    assert done.exit_code == 0, done.output
    assert "measured on twice (4 trainings of 2 rows)" in done.output and "one picture" not in done.output
    assert "Aesthetic: not in the file" in done.output
    done = CliRunner().invoke(main, ["noise", once, twice, "--out", target])
    assert done.exit_code == 0 and "not in the file" not in done.output
    assert CliRunner().invoke(main, ["report", once, "--noise", target, "--out", str(tmp_path / "r")]).exit_code == 0
    wanted = ["--difference", "0.05", "--metric", "geneval"]
    done = CliRunner().invoke(main, ["power", twice, *wanted])
    assert done.exit_code == 0, done.output
    assert "costs are unknown; name the run that trained too" in done.output and "(cheapest)" not in done.output
    done = CliRunner().invoke(main, ["power", once, twice, *wanted])
    assert done.exit_code == 0, done.output
    assert "(cheapest)" in done.output and "one picture a prompt" not in done.output


def test_a_report_of_one_seed_takes_a_noise_file_of_the_user_s(run, ranked, tmp_path: Path) -> None:
    mine, table = tmp_path / "mine.json", Path("main_results.md")
    assert CliRunner().invoke(main, ["noise", str(ranked.folder), "--out", str(mine)]).exit_code == 0
    for name, more in (("without", []), ("with", ["--noise", str(mine)])):
        done = CliRunner().invoke(main, ["report", str(run.folder), "--out", str(tmp_path / name), *more])
        assert done.exit_code == 0, done.output
    without, known = ((tmp_path / name / table).read_text() for name in ("without", "with"))
    assert "Seed variance unknown" in without and "noise file of the suite" not in without
    assert "Seed variance unknown" not in known
    assert "comes from the noise file of the suite embedded v1, measured on ranked (6 trainings of 3 rows)" in known
    records.write_json(mine, records.read_json(mine) | {"suite": "other"})
    done = CliRunner().invoke(main, ["report", str(run.folder), "--noise", str(mine)])
    assert done.exit_code == 1 and "mine.json is of the suite other, not embedded; make one with" in done.output
    done = CliRunner().invoke(main, ["report", "--published", "--noise", str(mine)])
    assert done.exit_code == 1 and "name a run folder" in done.output


def test_a_row_that_scores_alike_on_all_pictures_changes_nothing_by_its_place(ranked) -> None:
    """The first row's repeats stood for all: a saturated one halved what noise adds, and ended all division."""
    study = read_study([ranked.folder])

    def saturated(method: str) -> Study:
        jobs = [_with_all_at(job, 1.0) if job.method == method else job for job in study.jobs]
        return replace(study, jobs=tuple(jobs))

    files = [power.measure([saturated(method)]) for method in ("alpha", "gamma")]
    first, last = (file.metrics["geneval"] for file in files)
    assert first.repeats == last.repeats == 2
    assert first.residual == pytest.approx(last.residual, rel=0.4)
    assert first.prompt_noise == pytest.approx(last.prompt_noise, rel=0.4)


def _with_all_at(job: StudiedJob, value: float) -> StudiedJob:
    def evaluation(one: Evaluation) -> Evaluation:
        samples = [
            replace(s, scores={name: score.model_copy(update={"score": value}) for name, score in s.scores.items()})
            for s in one.samples
        ]
        return replace(one, samples=samples)

    return replace(job, evaluations=[evaluation(one) for one in job.evaluations])


def test_rows_on_subsets_of_their_own_do_not_say_how_methods_differ(make_run, tmp_path: Path) -> None:
    """Nothing that methods differ by was taken for known, and two seeds for enough."""
    run = make_run("apart")
    for subset in ("pretty", "plain"):
        for seed in (0, 1):
            run.job("alpha", 0.1, subset=subset, seed=seed)
    for command in (
        ["power", str(run.folder), "--difference", "0.05"],
        ["noise", str(run.folder), "--out", str(tmp_path / "noise.json")],
    ):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 1 and "no two rows of one subset of these runs have two finished seeds" in done.output


def test_what_is_not_in_the_file_is_said_with_its_reason(ranked, tmp_path: Path) -> None:
    for path in ranked.folder.glob("*--*/evaluations/*/samples.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["scores"] = {
                name: score | ({"score": 0.0} if name == "ocr" else {}) for name, score in row["scores"].items()
            }
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(main, ["noise", str(ranked.folder), "--out", str(tmp_path / "noise.json")])
    reason = "the trainings of all rows, or of all but one, score alike on every prompt"
    assert done.exit_code == 0 and f"OCR: not in the file, since {reason}" in done.output
    done = CliRunner().invoke(main, ["power", str(ranked.folder), "--difference", "0.05", "--metric", "ocr"])
    assert done.exit_code == 1 and f"nothing is known of OCR: {reason}" in done.output


@pytest.mark.parametrize("difference", ["1", "5"])
def test_a_difference_that_no_two_scores_have_is_refused(ranked, difference: str) -> None:
    done = CliRunner().invoke(main, ["power", str(ranked.folder), "--difference", difference, "--metric", "geneval"])
    assert done.exit_code == 1 and "whose scores lie between 0 and 1; name a smaller --difference" in done.output


def test_what_looks_at_whole_prompts_is_planned_with_the_suites_number_of_pictures(ranked) -> None:
    """A diversity of one picture is none: designs had one, and one was paid."""
    for column in ranked.experiment["suite"]["metrics"]:
        column["per_prompt"] = column["name"] == "clip"
    ranked.save()
    for path in ranked.folder.glob("*/evaluations/*/samples.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        of_prompt = {row["prompt_id"]: row["scores"].get("clip") for row in rows}
        for row in rows:
            row["scores"] |= {"clip": of_prompt[row["prompt_id"]]} if "clip" in row["scores"] else {}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(main, ["power", str(ranked.folder), "--difference", "0.05", "--metric", "clip"])
    assert done.exit_code == 0, done.output
    assert "x 24 prompts x 2 pictures" in done.output and "x 1 pictures" not in done.output
    assert "one picture a prompt" not in done.output


def test_what_was_not_divided_is_not_made_smaller_by_pictures_of_the_same_prompts() -> None:
    """Of prompts like these: what methods differ by may be all prompts, which only other prompts average."""
    undivided = NOISE.model_copy(update={"method_prompt": 0.0, "method_noise": 0.34, "divided": False})
    prompts = NOISE.model_copy(update={"method_prompt": 0.34, "method_noise": 0.0})
    for repeats in (1, 2, 8):
        design = Design(3, 50, repeats)
        found, expected = (power.variance(each, design, like=True).value for each in (undivided, prompts))
        assert found == pytest.approx(expected)
    of_list = [power.variance(undivided, Design(3, 50, repeats)).value for repeats in (1, 8)]
    assert of_list[1] < of_list[0]


def test_trainings_that_are_not_finished_are_not_paid(ranked) -> None:
    whole = power.costs([read_study([ranked.folder])])
    cut = ranked.job("alpha", 0.1, seed=7, status="interrupted", fractions=[0.333])
    ranked.lines(f"{cut}/clock.jsonl", [{"step": 1, "seconds": 1.0, "peak_memory": 1}])
    found = power.costs([read_study([ranked.folder])])
    assert whole and found and found.training == whole.training


@pytest.mark.parametrize("edit", [{"seed_shift": "0.001"}, {"seed_shift": True}, {"df": 0.05}, {"repeats": 1.5}])
def test_a_noise_file_with_other_types_or_no_degree_of_freedom_is_refused(ranked, tmp_path: Path, edit) -> None:
    study, path = read_study([ranked.folder]), tmp_path / "mine.json"
    records.write_record(path, power.measure([study]))
    held = json.loads(path.read_text())
    held["metrics"]["geneval"] |= edit
    path.write_text(json.dumps(held))
    with pytest.raises(BenchError, match=next(iter(edit))):
        given(path, study.experiment)


def test_a_file_that_is_no_noise_file_is_not_said_to_be_one_to_delete(ranked, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Notes")
    with pytest.raises(BenchError, match="make one with `bench noise`") as caught:
        given(tmp_path / "notes.md", read_study([ranked.folder]).experiment)
    assert "delete" not in str(caught.value)


def test_the_noise_file_of_a_suite_is_not_written_over_unasked(ranked, tmp_path: Path, monkeypatch) -> None:
    there = tmp_path / "embedded.noise.json"
    there.write_text("{}")
    monkeypatch.setattr("bench.report.seed_noise.beside", lambda suite: there)
    done = CliRunner().invoke(main, ["noise", str(ranked.folder)])
    assert done.exit_code == 1 and "is there already, for every report of the suite" in done.output
    assert there.read_text() == "{}"
    there.unlink()
    assert CliRunner().invoke(main, ["noise", str(ranked.folder)]).exit_code == 0 and there.is_file()
