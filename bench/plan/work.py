"""FLOPs and memory of an experiment's jobs, evaluations and encoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import mul
from pathlib import Path
from typing import Any

import torch

from bench import records, registry
from bench.errors import BenchError, Missing
from bench.experiment.config import ExperimentConfig, SubsetRule, rows_at_once
from bench.experiment.held_out import pairs_to_probe
from bench.experiment.keys import JobSpec, job_specs
from bench.experiment.loop import OVERSPENT
from bench.experiment.prompt_file import suite_of
from bench.experiment.recipe import Recipe, Stage
from bench.experiment.toml import parse_size
from bench.flops import Flops, count, decode_cost, transformer_cost
from bench.plan import memory, probe
from bench.plan.architecture import find
from bench.plan.estimates import Assumptions, JobPlan
from bench.probes import reader
from bench.suite import Suite
from bench.training.budget import Budget

SHIFT = 3.0
"""Timestep shift of SD3 and SD3.5. It says which levels probes start from, and hardly what they cost."""


@dataclass(frozen=True)
class _Stage:
    """One method of a row.

    Attributes:
        model: FLOPs of a step but for the reward's.
        graph: whether the reward is asked for a gradient, which costs its forward again.
        memory: bytes on one GPU while it trains.
        state, weights: bytes of its checkpoint and of what trains.
    """

    step: probe.Step
    model: int
    graph: bool
    memory: int
    state: int
    weights: int

    def flops(self, scoring: float) -> int:
        """Of a step, with a reward that costs ``scoring`` for each image."""
        return self.model + round(self.step.reward_calls * scoring * (1 + self.graph))


class Work:
    """Works out each part once.

    Attributes:
        architecture: of the backbone.
        suite: None where it cannot be read here.
        problems: why that, or another number, is not known.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        cache: Path,
        assumptions: Assumptions,
        rehearsed: Mapping[str, int] | None = None,
    ) -> None:
        self.config, self.cache, self.assumptions = config, cache, assumptions
        self._rehearsed = rehearsed or {}
        self.problems: list[str] = []
        self.suite: Any = None
        try:
            self.suite = suite_of(config)
        except Missing as error:
            self.problems.append(f"suite: {error}")
        self.architecture = find(config, self.suite.sampler.resolution if self.suite else None)

    @property
    def low(self) -> bool:
        """Whether matrix products are in bfloat16, as ``auto`` makes them on the GPUs planned for."""
        return self.config.dtype != "float32"

    # -- jobs ------------------------------------------------------------------------------------------------------

    def jobs(self) -> tuple[JobPlan, ...]:
        """Every job; those of one row differ in subset and seed alone, so a method is tried once for all of them.

        Raises:
            BenchError: one line for a configuration that does not hold, as a run has it.
        """
        jobs = job_specs(self.config, self.suite, self.architecture.scale)
        rows = {row: self._row(row, made) for row, made in {job.key.method: job.recipe for job in jobs}.items()}
        return tuple(rows[job.key.method](job) for job in jobs)

    def _row(self, row: str, made: Recipe) -> Callable[[JobSpec], JobPlan]:
        """How the jobs of a row are planned: each of its stages by itself, added up."""
        config = self.config
        try:
            stages = [self._stage(stage, row) for stage in made.stages]
        except BenchError as error:
            problem = str(error)
            return lambda job: JobPlan(job.name, problem=problem)
        # Text encoders are loaded alone while a cache is filled, and beside the model while text is encoded ahead.
        encoders = (2 if self.low else 4) * self.architecture.text_parameters
        training = max(stage.memory for stage in stages)
        whole = 4 * self._parameters * len(stages)  # what each stage but the last hands on, and the result
        ends = [stage.end for stage in made.stages]

        def planned(job: JobSpec) -> JobPlan:
            scoring = self._metric_flops.get(job.reward, 0.0) if job.reward else 0.0
            flops = [stage.flops(scoring) for stage in stages]
            updates = [stage.step.updates for stage in stages]
            if 0 in (prices := self.prices(flops, updates)):
                name = made.stages[prices.index(0)].name
                return JobPlan(job.name, problem=f"a step of {name} spends nothing of {config.budget}")
            taken = self.steps_within(flops, updates, ends)
            if 0 in taken:
                name = made.stages[taken.index(0)].name
                share = "its share of the budget" if len(taken) > 1 else f"the budget {config.budget}"
                advice = "; see --set split" if len(taken) > 1 else ""
                return JobPlan(job.name, problem=f"{share} pays for no step of {name}{advice}")
            by_formula = training + encoders if self.ahead(job.key.subset) else max(training, encoders)
            return JobPlan(
                name=job.name,
                steps=sum(taken),
                updates=sum(steps * stage.step.updates for steps, stage in zip(taken, stages, strict=True)),
                step_flops=round(sum(map(mul, taken, flops)) / max(sum(taken), 1)) if len(stages) > 1 else flops[0],
                flops=float(sum(map(mul, taken, flops))),
                evaluation_flops=self.evaluation_flops(len(config.fractions)),
                probe_flops=self.probe_flops and self.probe_flops * len(config.fractions),
                memory=self._rehearsed.get(row) or by_formula,
                formula=by_formula if row in self._rehearsed else 0,
                disk=max(stage.state for stage in stages) + (whole if len(stages) > 1 else stages[0].weights),
            )

        return planned

    def _stage(self, stage: Stage, row: str) -> _Stage:
        config, architecture = self.config, self.architecture
        rows = rows_at_once(config, architecture.scale, row)
        step = probe.one_step(stage.make(), rows, self.assumptions.gpus)
        trained = probe.what_trains(stage.make(), architecture, low=self.low)
        if config.half_life(self.suite):
            trained = replace(trained, copies=trained.copies + 4 * trained.trained)
        graph = stage.needs.differentiable_reward
        training = memory.training_memory(
            trained,
            step.graph_samples * self._activations + (memory.saved_for_decode(architecture) if graph else 0),
            layers=int(architecture.transformer["num_layers"]),
            low=self.low,
            adam_8bit=config.adam_8bit,
            sharded=config.sharding == "fsdp",
            gpus=self.assumptions.gpus,
        ).total
        adapted = step.forwards - step.reference_forwards
        model = adapted * trained.cost.forward + step.reference_forwards * trained.reference
        model += step.backwards * trained.cost.backward
        if step.images:
            decode = self._decode
            model += step.images * (decode.forward + graph * decode.backward)
        state = (4 + (2 if config.adam_8bit else 8)) * trained.trained + trained.copies
        return _Stage(step, model, graph, training, state, 4 * trained.trained)

    def prices(self, flops: Sequence[int], updates: Sequence[int]) -> list[float]:
        """What an iteration of each stage spends, in the budget's currency."""
        currency, rate = Budget.parse(self.config.budget).currency, self.assumptions.peak * self.assumptions.utilisation
        return [
            {"flops": cost, "steps": 1, "updates": each, "device-seconds": cost / rate}[currency]
            for cost, each in zip(flops, updates, strict=True)
        ]

    def steps_within(self, flops: Sequence[int], updates: Sequence[int], ends: Sequence[float]) -> list[int]:
        """Iterations of each stage; it stops before the one that would overshoot its end, and the next goes on from it.

        Args:
            flops, updates: of an iteration, by stage.
            ends: share of the budget at which each stage ends.
        """
        budget = Budget.parse(self.config.budget)
        spent, taken = 0.0, []
        for price, end in zip(self.prices(flops, updates), ends, strict=True):
            steps = math.floor((end * budget.amount * (1 + 1e-9) - spent) / price)
            room = end * (1 + OVERSPENT) if end < 1 else 1 + 1e-9
            if steps < 1 and spent + price <= room * budget.amount:
                steps = 1  # a stage takes its first step before it knows what one costs
            taken.append(max(steps, 0))
            spent += taken[-1] * price
        return taken

    @cached_property
    def _activations(self) -> int:
        """Bytes that autograd saves for a sample."""
        return memory.saved_for_backward(
            self.architecture, low=self.low, checkpointing=self.config.gradient_checkpointing
        )

    # -- evaluations and encoding ----------------------------------------------------------------------------------

    def evaluation_flops(self, evaluations: int) -> float | None:
        """Of a job's evaluations: sampling, decoding, and the metrics that know their cost. None: no suite is known."""
        if self.suite is None:
            return None
        return self._drawing_flops(self.suite) + (evaluations - 1) * self._drawing_flops(self.suite.part())

    def _drawing_flops(self, suite: Suite) -> float:
        """Of one evaluation of all prompts of a suite."""
        total = 0.0
        for prompts in suite.prompt_sets:
            metrics = sum(self._metric_flops.get(name, 0.0) for name in prompts.metrics)
            total += prompts.images * (self._image_flops + metrics)
        return total

    @cached_property
    def _image_flops(self) -> float:
        """Of sampling and decoding one image of the suite."""
        sampler = self.suite.sampler
        shape = self.architecture.latent_shape(sampler.resolution)
        branches = 1 if sampler.guidance_scale == 1 else 2
        return float(sampler.steps * branches * self._forward_flops + self._vae_flops("decode", shape))

    @cached_property
    def probe_flops(self) -> float | None:
        """At most, of the probes of one evaluation on the pairs of one subset. None: the suite is not known."""
        if self.suite is None:
            return None
        entry = registry.table("corpora").get(self.config.corpus)
        fresh = bool(entry and getattr(registry.load("corpora", self.config.corpus), "holdout", ""))
        count = pairs_to_probe(self.config, fresh)
        if not count:
            return 0.0
        probing = reader.routine_probing(self.suite, SHIFT, self.problems.append)
        pairs = min(count, reader.affordable(self.suite, probing, len(self.config.fractions)))
        return float(reader.spent(probing, pairs) * self._forward_flops)

    @cached_property
    def _forward_flops(self) -> int:
        """Of one sample through the model at the size that the suite draws."""
        model = self.architecture.empty_transformer().requires_grad_(False)
        shape = self.architecture.latent_shape(self.suite.sampler.resolution)
        return transformer_cost(model, shape, self.architecture.text_tokens).forward

    @cached_property
    def shared_flops(self) -> float:
        """The base's evaluation with its probes on each subset, and each pair of known subsets encoded once."""
        total, pairs = self.evaluation_flops(1) or 0.0, sum(self.pairs(name) or 0 for name in self.config.subsets)
        total += len(self.config.subsets) * (self.probe_flops or 0.0)
        if pairs:
            side = self.architecture.resolution
            total += pairs * (self._vae_flops("encode", (3, side, side)) + self.caption_flops)
        return total

    @property
    def caption_flops(self) -> int:
        """Of the text encoders for a caption: 2 FLOPs a weight and token."""
        return 2 * self.architecture.text_parameters * self.architecture.max_sequence_length

    @cached_property
    def _parameters(self) -> int:
        return sum(p.numel() for p in self.architecture.empty_transformer().parameters())

    @cached_property
    def _decode(self) -> Flops:
        return decode_cost(self.architecture.empty_vae().requires_grad_(False), self.architecture.latent_shape())

    def _vae_flops(self, direction: str, shape: tuple[int, int, int]) -> int:
        vae = self.architecture.empty_vae()
        with torch.no_grad():
            return count(lambda: getattr(vae, direction)(torch.empty(1, *shape, device="meta")))

    @cached_property
    def metrics(self) -> list[str]:
        """The suite's, and the reward if the experiment names one."""
        columns = [name for name, _ in self.suite.metrics()] if self.suite else []
        return list(dict.fromkeys([*columns, *([self.config.reward] if self.config.reward else [])]))

    @cached_property
    def _metric_flops(self) -> dict[str, float]:
        """FLOPs of scoring a picture, for those of the suite's metrics and the reward that can tell here."""
        flops: dict[str, float] = {}
        lacking: dict[str, list[str]] = {}
        for name in self.metrics:
            try:
                flops[name] = float(registry.load("metrics", name)().flops_per_image)
            except Missing:  # said with all that is not on this machine
                continue
            except BenchError as error:
                lacking.setdefault(str(error), []).append(name)
        self.problems += [f"{' and '.join(names)}: {why}" for why, names in lacking.items()]
        return flops

    # -- pairs -----------------------------------------------------------------------------------------------------

    def pairs(self, subset: str) -> int | None:
        """Pairs of a subset: as last cut from this corpus, else as the experiment's source reports, else not known."""
        rule = self.config.subset.get(subset, SubsetRule())
        return _curated(self.cache, self.config.corpus, subset, rule) or rule.pairs

    @property
    def text_row(self) -> int:
        """Bytes of a caption's embeddings in the cache, which keeps them in bfloat16."""
        config, tokens = self.architecture.transformer, self.architecture.text_tokens
        return 2 * int(tokens * config["joint_attention_dim"] + config["pooled_projection_dim"])

    def ahead(self, subset: str) -> bool:
        """Whether a subset's captions are too many for the cache, and are encoded ahead instead.

        That takes more memory, so it is supposed of a corpus in files whose pairs are not known.
        """
        pairs = self.pairs(subset)
        if pairs is None:
            return self.config.corpus not in registry.table("corpora")
        return pairs * self.text_row > parse_size(self.config.text_cache_limit)


def _curated(cache: Path, corpus: str, subset: str, rule: SubsetRule) -> int | None:
    """Pairs of the manifest last cut from a corpus of this name by this rule, if there is one."""
    thresholds = {
        key: value for key, value in (("threshold", rule.threshold), ("quantile", rule.quantile)) if value is not None
    }
    named = corpus if corpus in registry.table("corpora") else Path(corpus.partition("?")[0]).name
    counts = []
    for path in cache.glob("cuts/*/*/manifest.json"):
        head = records.read_json(path)
        if all(head.get(key) == value for key, value in {"corpus": named, "subset": subset, **thresholds}.items()):
            counts.append((path.stat().st_mtime, int(head["count"])))
    return max(counts)[1] if counts else None
