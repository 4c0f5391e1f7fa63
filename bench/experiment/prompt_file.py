"""A suite on prompts of one's own: a text file with a prompt on each line."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from bench import registry
from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig
from bench.machine.spelling import lines_of
from bench.prompt import Prompt
from bench.rng import derive_seed
from bench.suite import PromptSet, Suite


def suite_of(config: ExperimentConfig) -> Suite:
    """What an experiment is evaluated on: its suite, on the prompts of its file if it names one.

    Raises:
        Missing: a file of the suite is not on this machine.
        BenchError: the prompts cannot be used, or the experiment's settings were tuned on one of them.
    """
    suite: Suite = registry.load("suites", config.suite)()
    suite = with_prompts(suite, Path(config.prompts)) if config.prompts else suite
    if config.tuned:
        config.tuned.check_prompts(suite.texts(), suite.name)
    return suite


def with_prompts(suite: Suite, path: Path) -> Suite:
    """The metrics of ``suite`` that need no facts, on the prompts of a file, each drawn once with noise of its own.

    The file's hash is part of the suite's name, since other prompts make other scores.

    Raises:
        BenchError: the file cannot be read, has no prompt or one twice, or every metric needs facts.
    """
    try:
        data = path.read_bytes()
        texts = lines_of(data)
    except OSError as error:
        raise BenchError(f"the prompts {path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"the prompts {path} cannot be read: {error}; save the file as UTF-8") from error
    if not texts or len(set(texts)) < len(texts):
        twice = next((text for i, text in enumerate(texts) if text in texts[:i]), None)
        raise BenchError(f"{path} holds {f'{twice!r} twice' if twice else 'no prompt'}; it takes one prompt a line")
    metrics = tuple(
        dict.fromkeys(
            name
            for name, _ in suite.metrics()
            if not (kind := registry.load("metrics", name)).needs_facts and not kind.per_prompt
        )
    )
    if not metrics:
        raise BenchError(f"every metric of the suite {suite.name} needs facts of a prompt, and a text file has none")
    digest = hashlib.sha256(data).hexdigest()[:12]
    prompts = tuple(Prompt(f"{number:05d}", text) for number, text in enumerate(texts))
    return replace(
        suite,
        name=f"{suite.name} on {path.name} {digest}",
        prompt_sets=(PromptSet("prompts", prompts, 1, metrics),),
        seed=derive_seed(suite.seed, "prompt-file") % 2**31,
        notice=f"{suite.notice} The prompts are those of {path.name}, not the suite's.",
    )
