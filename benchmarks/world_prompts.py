"""Test prompts of the shape world: held-out combinations only, spread evenly over tasks and relations."""

from __future__ import annotations

from bench.rng import numpy_generator
from bench.suite import Prompt
from data_curation.world import scene
from data_curation.world import vocabulary as V


def as_prompt(prompt: scene.ScenePrompt, number: int) -> Prompt:
    """A scene's prompt as a suite's: its facts are what metrics check."""
    if prompt.word is not None:
        facts: dict[str, object] = {"word": prompt.word}
    else:
        facts = {"include": prompt.include, "exclude": prompt.exclude}
    return Prompt(f"{prompt.tag}-{number:03d}", prompt.text, prompt.tag, facts)


def held_out(tag: str, count: int, seed: int = 0) -> tuple[Prompt, ...]:
    """``count`` different held-out prompts of a task, or all of them where there are fewer."""
    prompts = [prompt for prompt in scene.all_prompts(tag) if prompt.held_out]
    order = numpy_generator(seed, 0, 0, f"test-prompts-{tag}").permutation(len(prompts))
    return tuple(as_prompt(prompts[i], number) for number, i in enumerate(order[:count].tolist()))


def geneval(per_task: int) -> tuple[Prompt, ...]:
    """Held-out prompts of GenEval's six tasks."""
    return tuple(prompt for tag in V.TASKS for prompt in held_out(tag, per_task))


def signs(count: int) -> tuple[Prompt, ...]:
    """Held-out words on signs."""
    return held_out("sign", count)
