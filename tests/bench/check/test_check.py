"""``bench check``: every built-in method keeps every promise, and a broken one is named with its line."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from plugin_files import SOUND, changed, line_of, write

from bench import plugins, registry
from bench.check import PROMISES, broken, check_method
from bench.cli import main
from bench.errors import BenchError

STATE = """
    def setup(self, job):
        job.train_full(**self.config.adamw())
        self.mean = torch.zeros(())

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean = state["mean"]
"""
LOSS = "loss = flow.velocity_error(velocity, z1 - pairs.latents).sum()"
UPDATE = "        job.update()\n"


def prompted(old: str, new: str) -> str:
    """The sound plugin with one place changed, and a batch of four prompts in every step."""
    return (
        changed(old, new)
        .replace("Needs(pairs=True)", "Needs(pairs=True, prompts=True)")
        .replace("        for pairs in", "        batch = job.prompts(4)\n        for pairs in")
    )


BROKEN = {
    "raises": (changed(LOSS, "loss = velocity.nothing()"), "runs", "velocity.nothing()", "AttributeError"),
    "raises later": (
        changed(UPDATE, UPDATE + "        1 / (job.step - 2)\n"),
        "runs",
        "1 / (job.step - 2)",
        "step 3 raises ZeroDivisionError",
    ),
    "exits": (changed(LOSS, "raise SystemExit(3)"), "runs", "raise SystemExit", "step 1 raises SystemExit: 3"),
    "raises when it is made": (
        changed(UPDATE, UPDATE, "\n    def __init__(self, config):\n        super().__init__(config)\n        1 / 0\n"),
        "runs",
        "1 / 0",
        "__init__ raises ZeroDivisionError",
    ),
    "needs that raise": (
        changed(UPDATE, UPDATE, "\n    @classmethod\n    def needs_of(cls, config):\n        return 1 / 0\n"),
        "declares",
        "return 1 / 0",
        "needs_of raises ZeroDivisionError",
    ),
    "nan": (changed(LOSS, LOSS + ' * float("nan")'), "finite", "job.accumulate(", "the loss is nan"),
    "logs infinity": (
        changed(UPDATE, UPDATE + '        job.log("odd", 1e400)\n'),
        "finite",
        'job.log("odd"',
        "odd is inf",
    ),
    "no loss": (
        changed("job.accumulate(loss, len(pairs))", "loss.backward(); job._model.learner.items += len(pairs)"),
        "finite",
        "def step",
        "no loss is logged",
    ),
    "never updates": (changed(UPDATE, ""), "learns", "def step", "4 steps made no update"),
    "updates nothing": (changed(LOSS, LOSS + " * 0"), "learns", "def step", "left every weight as it was"),
    "trains nothing": (
        changed("job.train_full(**self.config.adamw())", "pass"),
        "learns",
        None,
        "setup() chose nothing to train",
    ),
    "undeclared pairs": (
        changed("Needs(pairs=True)", "Needs(prompts=True)"),
        "data",
        "in job.pairs",
        "did not declare needs.pairs",
    ),
    "undeclared prompts": (
        changed(UPDATE, "        batch = job.prompts(2)\n" + UPDATE),
        "data",
        "job.prompts(2)",
        "did not declare needs.prompts",
    ),
    "undeclared reward": (
        changed(UPDATE, "        job.reward(np.zeros((1, 4, 4, 3), np.uint8), [None])\n" + UPDATE),
        "data",
        "job.reward(",
        "did not declare needs.reward",
    ),
    "undeclared gradient": (
        changed(UPDATE, "        job.differentiable_reward(torch.zeros(1, 3, 4, 4), [None])\n" + UPDATE).replace(
            "Needs(pairs=True)", "Needs(pairs=True, reward=True)"
        ),
        "data",
        "job.differentiable_reward(",
        "did not declare needs.differentiable_reward",
    ),
    "undeclared preferences": (
        changed(UPDATE, "        list(job.preference_pairs(2))\n" + UPDATE),
        "data",
        "job.preference_pairs",
        "did not declare needs.preference_pairs",
    ),
    "torch's generator": (
        changed('job.noise(pairs, "noise")', "torch.randn_like(pairs.latents)"),
        "randomness",
        "torch.randn_like",
        "step() draws from torch's global generator; take job.noise",
    ),
    "numpy's generator": (
        changed("job.train_full", "self.draw = np.random.rand(); job.train_full"),
        "randomness",
        "np.random.rand()",
        "setup() draws from numpy's global generator",
    ),
    "a seed of its own": (
        changed(
            'job.noise(pairs, "noise")', "torch.from_numpy(np.random.default_rng().normal(size=(4, 4, 4, 4))).float()"
        ),
        "randomness",
        "def step",
        "two jobs with the same seed differ after a step",
    ),
    "unmetered": (
        changed(
            LOSS,
            LOSS + "\n            job.policy.transformer(pairs.latents, pairs.text.prompt_embeds,"
            " pairs.text.pooled_prompt_embeds, 1000 * sigma)",
        ),
        "compute",
        "job.policy.transformer(",
        "a forward of the model that is not charged",
    ),
    "unmetered by the context": (
        changed(
            LOSS,
            LOSS + "\n            with job._ledger.unmetered(), torch.no_grad():"
            "\n                job.policy.unconditional_velocity(pairs.latents, 0.5)",
        ),
        "compute",
        "unconditional_velocity",
        "a forward of the model that is not charged",
    ),
    "unmetered copy": (
        changed(
            "job.train_full(**self.config.adamw())",
            "job.train_full(**self.config.adamw()); self.teacher = deepcopy(job.policy.transformer)",
        )
        .replace("import torch\n", "import torch\nfrom copy import deepcopy\n")
        .replace(
            LOSS,
            LOSS + "\n            self.teacher(pairs.latents, pairs.text.prompt_embeds,"
            " pairs.text.pooled_prompt_embeds, 1000 * sigma)",
        ),
        "compute",
        "self.teacher(",
        "a forward of the model that is not charged",
    ),
    "unmetered block": (
        changed(
            LOSS,
            LOSS + "\n            job.policy.transformer.transformer_blocks[1](torch.zeros(1, 4, 32), "
            "torch.zeros(1, 8, 32), torch.zeros(1, 32))",
        ),
        "compute",
        "transformer_blocks[1](",
        "a forward of the model that is not charged",
    ),
    "a network of its own": (
        changed(
            "job.train_full(**self.config.adamw())",
            "job.train_full(**self.config.adamw()); self.critic = torch.ones(2048, 2048)",
        ).replace(UPDATE, UPDATE + "        self.critic @ self.critic\n"),
        "compute",
        "def step",
        "job does not charge all that runs",
    ),
    "grows": (
        changed("job.pairs(self.config.batch_size)", "job.pairs(self.config.batch_size * (3 if job.step == 1 else 1))"),
        "budget",
        "def step",
        "would be overspent by 20%",
    ),
    "state lost": (
        changed("job.train_full(**self.config.adamw())", "job.train_full(**self.config.adamw()); self.scale = 1.0")
        .replace(UPDATE, UPDATE + "        self.scale *= 0.5\n")
        .replace(LOSS, LOSS + " * self.scale"),
        "resume",
        "def step",
        "after a resume",
    ),
    "state not restored": (
        changed(
            UPDATE, UPDATE + "        self.mean = self.mean + 1\n", STATE.replace('= state["mean"]', "= self.mean")
        ),
        "state",
        "def load_state_dict",
        "['mean'] differs from what was saved",
    ),
    "state of objects": (
        changed(UPDATE, UPDATE, STATE.replace('{"mean": self.mean}', '{"mean": object()}')),
        "state",
        "def state_dict",
        "state_dict holds more than tensors and plain values",
    ),
    "evaluation": (
        changed(
            UPDATE,
            UPDATE,
            "\n    @contextmanager\n    def evaluation_weights(self, job):\n        with torch.no_grad():\n"
            "            for p in job.parameters:\n                p.mul_(0.5)\n        yield\n",
        ),
        "evaluation",
        "@contextmanager",
        "evaluation_weights changes ",
    ),
    "a forward in evaluation": (
        changed(
            UPDATE,
            UPDATE,
            "\n    @contextmanager\n    def evaluation_weights(self, job):\n        with torch.no_grad():\n"
            "            job.policy.unconditional_velocity(torch.zeros(1, *job.latent_shape), 0.5)\n        yield\n",
        ),
        "evaluation",
        "unconditional_velocity",
        "a forward of the model that is not charged",
    ),
    "evaluation that raises": (
        changed(
            UPDATE,
            UPDATE,
            "\n    @contextmanager\n    def evaluation_weights(self, job):\n        yield\n        job.nothing()\n",
        ),
        "evaluation",
        "job.nothing()",
        "it raises AttributeError",
    ),
    "weights that are not finite": (
        changed(
            UPDATE,
            UPDATE,
            "\n    @contextmanager\n    def evaluation_weights(self, job):\n"
            "        with job.swapped([torch.full_like(p, torch.inf) for p in job.parameters]):\n            yield\n",
        ),
        "evaluation",
        "@contextmanager",
        "the weights to be evaluated are not finite",
    ),
    "a mean over micro-batches": (
        changed(LOSS, LOSS.replace(".sum()", ".mean()")).replace("(loss, len(pairs))", "(loss, 1)"),
        "micro-batches",
        "def step",
        "a loss must be a sum over samples",
    ),
    "draws by place": (
        changed('job.uniform(pairs, "time")', 'torch.rand(len(pairs), generator=job.rng("time"))'),
        "processes",
        "def step",
        "the weights after a step differ by",
    ),
    "its own for everyone's": (
        prompted(LOSS, "loss = (flow.velocity_error(velocity, z1 - pairs.latents) * batch.rows[pairs.rows]).sum()"),
        "processes",
        "batch.rows[pairs.rows]",
        "on two processes step 1 raises IndexError",
    ),
    "a call of one process": (
        prompted(LOSS, LOSS + "\n            if pairs.rows[0] == 0: job.gather(batch.rows.float(), batch)"),
        "processes",
        "def step",
        "one calls a sum of shape (4,) where the other calls job.update()",
    ),
    "weights of its own": (
        prompted(UPDATE, UPDATE + "        job.parameters[0].data += 1e-4 * batch.rows[0]\n"),
        "processes",
        "def step",
        "two processes end a step with different weights",
    ),
    "a cost of each process": (
        changed(
            UPDATE,
            "        with torch.no_grad():\n"
            "            job.policy.velocity(pairs.latents[:1], 0.5, pairs.text[[0]])\n" + UPDATE,
        ),
        "processes",
        "def step",
        "two processes are charged",
    ),
    "needs that are none": (changed("Needs(pairs=True)", '{"pairs": True}'), "declares", None, "it must be Needs"),
    "needs without parentheses": (changed("Needs(pairs=True)", "Needs"), "declares", None, "it must be Needs"),
    "a configuration that is made": (
        changed("    def setup", "    Config = Config()\n\n    def setup"),
        "declares",
        None,
        "it must be a subclass of",
    ),
    "abstract": (changed("def step", "def stepp"), "declares", None, "does not define step"),
}

SEVERAL = ("torch's generator", "a seed of its own", "state not restored", "state of objects", "draws by place")
"""Break another promise too."""


def checked(folder, source: str):
    """Findings on a plugin, by promise."""
    module = plugins.execute(write(folder, source), source.encode())
    return {finding.promise: finding for finding in check_method(module.Plain)}


OTHERWISE = {
    "dpo": {"pairs_from": "reference", "passes": 2},
    "flow_grpo": {"window": 2, "sde_kind": "cps", "guard": True, "detach_unconditional": False},
    "leap_align": {"detach_unconditional": False},
    "mixflow": {"density": "logit_normal"},
    "reflexflow": {"through_rollout": True},
    "soar": {"sde_branches": 2, "fresh_noise": True, "aux_weighting": "clipped"},
}
"""What a method computes in another way under other settings."""


@pytest.mark.parametrize(
    ("name", "settings"), [*((name, {}) for name in registry.BUILT_IN["methods"]), *OTHERWISE.items()]
)
def test_every_built_in_method_keeps_every_promise(name, settings):
    findings = check_method(registry.load("methods", name), **settings)
    assert broken(findings) == []
    assert [finding.promise for finding in findings] == list(PROMISES)


@pytest.mark.parametrize("breach", BROKEN)
def test_a_broken_promise_is_named_with_its_line(tmp_path, breach):
    source, promise, line, says = BROKEN[breach]
    findings = checked(tmp_path, source)
    assert not findings[promise].ok and says in findings[promise].broken
    assert findings[promise].where == (f"{tmp_path / 'mine.py'}:{line_of(source, line)}" if line else "")
    others = [str(finding) for finding in findings.values() if not finding.ok and finding.promise != promise]
    assert not others or breach in SEVERAL
    assert "\n" not in str(findings[promise])


def test_a_sound_plugin_keeps_every_promise_and_the_callers_generators_stay(tmp_path):
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    findings = checked(tmp_path, SOUND)
    assert list(findings) == list(PROMISES) and all(finding.ok for finding in findings.values())
    checked(tmp_path, BROKEN["torch's generator"][0])
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


def test_settings_reach_the_method_and_a_wrong_one_is_refused(tmp_path):
    path = write(tmp_path, SOUND)
    name = plugins.register(path)
    (finding,) = [f for f in check_method(registry.load("methods", name), lr=1e30) if not f.ok][:1]
    assert finding.promise in ("finite", "runs")
    with pytest.raises(BenchError, match="unknown configuration key 'batchsize'; did you mean 'batch_size'"):
        check_method(registry.load("methods", name), batchsize=2)


@pytest.mark.parametrize(("source", "status"), [(SOUND, 0), (BROKEN["never updates"][0], 1)])
def test_the_command_prints_a_line_per_promise_and_ends_with_status_1(tmp_path, source, status):
    path = write(tmp_path, source)
    result = CliRunner().invoke(main, ["check", str(path), "--set", "batch_size=2"])
    assert result.exit_code == status, result.output
    lines = result.output.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == list(PROMISES)
    assert [line.split()[0] for line in lines].count("BROKEN") == status


def test_the_command_refuses_a_name_in_one_line():
    result = CliRunner().invoke(main, ["check", "sfft"])
    assert result.exit_code == 1 and result.output == "bench: unknown method 'sfft'; did you mean 'sft'?\n"
