"""The metered doors: what a method is given, what it is charged, and what is refused."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import CAPTIONS, Brightness, same, weights

from bench import flow
from bench.errors import BenchError
from bench.flops import transformer_cost
from bench.job import Job, JobFailure
from bench.suite import Prompt

PAIRS = 12


@pytest.fixture
def job(world) -> Job:
    job: Job = world.job()
    job.train_full(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0)
    return job


@pytest.fixture
def lora(world) -> Job:
    job: Job = world.job()
    job.train_lora(
        rank=2, alpha=4, target_modules=["attn.to_q"], lr=0.1, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0
    )
    return job


def forward(job: Job, count: int = 3) -> torch.Tensor:
    pairs = job.pairs(count)
    return job.policy.velocity(pairs.latents, 0.5, pairs.text)


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 5, 12, 31])
def test_every_epoch_visits_every_pair_once_and_in_another_order(job, batch):
    order = torch.cat([job.pairs(batch).indices for _ in range(-(-4 * PAIRS // batch))])[: 4 * PAIRS]
    epochs = order.view(4, PAIRS).tolist()
    assert all(sorted(epoch) == list(range(PAIRS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_pairs_bring_their_own_latents_and_captions(job, world):
    pairs = job.pairs(5)
    for row, index in enumerate(pairs.indices.tolist()):
        caption = index % len(CAPTIONS)  # as the corpus deals them out
        assert torch.equal(pairs.latents[row], world.data.latents[index])
        assert torch.equal(pairs.text.prompt_embeds[row], world.data.text.prompt_embeds[caption])
        assert torch.equal(pairs.text.pooled_prompt_embeds[row], world.data.text.pooled_prompt_embeds[caption])


def test_the_order_depends_on_the_seed_and_not_on_the_batch(world):
    one, two, other = world.job(), world.job(), world.job(seed=1)
    in_sevens = torch.cat([one.pairs(7).indices for _ in range(6)])
    assert torch.equal(in_sevens, torch.cat([two.pairs(3).indices for _ in range(14)]))
    assert not torch.equal(in_sevens, torch.cat([other.pairs(7).indices for _ in range(6)]))


def test_every_epoch_of_prompts_visits_every_prompt_once(world):
    job = world.job()
    drawn = [prompt.text for _ in range(4) for prompt in job.prompts(5).prompts]
    epochs = [drawn[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(epoch) == sorted(CAPTIONS) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1


def test_prompts_bring_their_own_conditions(world):
    batch = world.job().prompts(3)
    for row, prompt in enumerate(batch.prompts):
        assert torch.equal(batch.text.prompt_embeds[row], world.data.text.prompt_embeds[CAPTIONS.index(prompt.text)])


def test_pairs_and_prompts_do_not_disturb_each_other(world):
    mixed, pure, prompts = world.job(), world.job(), world.job()
    for _ in range(7):
        asked = mixed.prompts(2).prompts
        assert torch.equal(mixed.pairs(5).indices, pure.pairs(5).indices)
        assert asked == prompts.prompts(2).prompts


def test_a_method_that_declared_no_pairs_gets_none(world):
    job = world.job(data=replace(world.data, latents=None))
    with pytest.raises(JobFailure, match=r"did not declare needs\.pairs"):
        job.pairs(1)


def test_a_method_that_declared_no_prompts_gets_none(world):
    with pytest.raises(JobFailure, match=r"did not declare needs\.prompts"):
        world.job(data=replace(world.data, prompts=())).prompts(1)


# -- noise -------------------------------------------------------------------------------------------------------------


def test_noise_is_a_function_of_seed_step_rank_and_stream(world):
    def draw(seed: int = 0, step: int = 0, rank: int = 0, stream: str = "a") -> torch.Tensor:
        job = world.job(seed=seed, rank=rank)
        job.step = step
        return job.noise(2, stream)

    assert torch.equal(draw(), draw())
    variants = [draw(), draw(seed=1), draw(step=1), draw(rank=1), draw(stream="b")]
    assert len({tuple(v.flatten().tolist()) for v in variants}) == 5
    assert draw().shape == (2, 4, 4, 4)


def test_doors_leave_the_global_generators_alone(world):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    job = world.job()
    job.train_lora(
        rank=2, alpha=4, target_modules=["attn.to_q"], lr=0.1, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0
    )
    job.pairs(3), job.prompts(3), job.noise(2, "x"), job.decode(job.noise(1, "y"))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_a_lora_adapter_starts_the_same_for_a_seed_whatever_the_global_generator(world):
    def start(seed: int, state: int) -> list[torch.Tensor]:
        torch.manual_seed(state)
        job = world.job(seed=seed)
        job.train_lora(
            rank=2, alpha=4, target_modules=["attn.to_q"], lr=1.0, betas=(0.9, 0.9), weight_decay=0, max_grad_norm=1
        )
        return weights(job)

    with torch.random.fork_rng(devices=[]):
        assert same(start(0, 1), start(0, 2))
        assert not same(start(0, 1), start(1, 1))


# -- metering ----------------------------------------------------------------------------------------------------------


def test_a_training_forward_is_charged_with_its_backward(job):
    cost = transformer_cost(job.policy.transformer, job.latent_shape, job.policy.null.prompt_embeds.shape[1])
    job.update(forward(job, 3).mean())
    meter = job.meter
    assert (meter.pairs, meter.forwards, meter.backwards, meter.updates) == (3, 3, 3, 1)
    assert meter.flops == 3 * (cost.forward + cost.backward) > 0


def test_without_a_graph_only_the_forward_is_charged(job):
    cost = transformer_cost(job.policy.transformer, job.latent_shape, job.policy.null.prompt_embeds.shape[1])
    with torch.no_grad():
        forward(job, 3)
    assert (job.meter.forwards, job.meter.backwards, job.meter.flops) == (3, 0, 3 * cost.forward)


def test_guidance_is_charged_twice_and_scale_one_once(job, world):
    with torch.no_grad():
        job.policy.guided_velocity(job.noise(3, "x"), 0.5, world.text(3), 4.5)
        assert job.meter.forwards == 6
        job.policy.guided_velocity(job.noise(3, "x"), 0.5, world.text(3), 1.0)
    assert job.meter.forwards == 9


def test_guidance_joins_both_branches(job, world):
    z, text = job.noise(3, "x"), world.text(3)
    with torch.no_grad():
        guided = job.policy.guided_velocity(z, torch.tensor([0.2, 0.5, 0.9]), text, 4.5)
        conditional = job.policy.velocity(z, torch.tensor([0.2, 0.5, 0.9]), text)
        unconditional = job.policy.unconditional_velocity(z, torch.tensor([0.2, 0.5, 0.9]))
    expected = unconditional.double() + 4.5 * (conditional.double() - unconditional.double())
    torch.testing.assert_close(guided.double(), expected, rtol=1e-4, atol=1e-5)


def test_sampling_is_charged_per_step_and_follows_the_schedule(job, world):
    noise, text = job.noise(2, "x"), world.text(2)
    latents = job.sample(noise, text, steps=3, guidance_scale=2.0)
    assert (job.meter.forwards, job.meter.backwards) == (2 * 2 * 3, 0)
    sigmas, expected = job.policy.sigmas(3), noise
    assert sigmas[0] == 1 and sigmas[-1] == 0 and len(sigmas) == 4
    with torch.no_grad():
        for i in range(3):
            velocity = job.policy.guided_velocity(expected, sigmas[i], text, 2.0)
            expected = flow.euler(expected, velocity, sigmas[i], sigmas[i + 1])
    assert torch.equal(latents, expected) and not latents.requires_grad


def test_decoding_and_rewards_are_charged(job):
    images = job.decode(job.noise(3, "x"))
    decoding = job.meter.flops
    assert images.shape == (3, 16, 16, 3) and images.dtype == np.uint8
    assert job.meter.images == 3 and decoding > 0
    job._reward.flops_per_image = 1000.0
    scores = job.reward(images, [Prompt("0", "x")] * 3)
    assert job.meter.reward_calls == 3 and job.meter.flops == decoding + 3000
    np.testing.assert_allclose(scores.numpy(), images.reshape(3, -1).mean(1) / 255, rtol=1e-6)


def test_decoding_costs_the_same_per_image_however_many(job):
    job.decode(job.noise(1, "x"))
    one = job.meter.flops
    job.decode(job.noise(5, "x"))
    assert job.meter.flops == 6 * one


def test_evaluation_is_never_charged(job):
    with job.unmetered():
        forward(job, 2)
    assert (job.meter.forwards, job.meter.flops) == (0, 0)
    forward(job, 2)
    assert job.meter.forwards == 2


# -- updates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_fails_the_job_and_moves_nothing(job, value):
    before = weights(job)
    with pytest.raises(JobFailure, match=rf"the loss is {value} at step 0"):
        job.update(forward(job).pow(2).mean() * value)
    assert same(before, weights(job)) and job.meter.updates == 0


def test_a_gradient_that_is_not_finite_fails_the_job_and_moves_nothing(job):
    before = weights(job)
    with pytest.raises(JobFailure, match="the gradient norm is"):
        job.update(forward(job).abs().mul(0).sum().sqrt())  # sqrt has an infinite slope at 0
    assert same(before, weights(job)) and job.meter.updates == 0


def test_an_update_without_trained_parameters_fails_the_job(world):
    with pytest.raises(JobFailure, match="chose nothing to train"):
        world.job().update()


def test_accumulated_gradients_add_up_to_one_update(world):
    jobs = [world.job(), world.job()]
    for job in jobs:
        job.train_full(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0)
    parameter = [job.parameters[0] for job in jobs]
    jobs[0].accumulate(parameter[0].sum())
    jobs[0].accumulate(2 * parameter[0].sum())
    norm = jobs[0].update()
    assert norm == jobs[1].update(3 * parameter[1].sum()) == pytest.approx(3 * parameter[0].numel() ** 0.5)
    assert same(weights(jobs[0]), weights(jobs[1]))
    assert all(p.grad is None for p in jobs[0].parameters)


def test_the_update_is_adamw_on_the_clipped_gradient(world):
    job = world.job()
    job.train_full(lr=0.1, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=0.5)
    parameter, before = job.parameters[0], job.parameters[0].detach().double().clone()
    job.update(parameter.sum())
    # after one step both moments cancel: the update is lr * g / (|g| + 1e-8), whatever the clipped size
    size = 0.5 / parameter.numel() ** 0.5
    torch.testing.assert_close(parameter.double(), before - 0.1 * size / (size + 1e-8), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("broken", [False, True])
def test_swapped_weights_come_back_bit_for_bit(job, broken):
    before, other = weights(job), [torch.randn(p.shape, generator=job.rng("x")) for p in job.parameters]

    with contextlib.suppress(RuntimeError), job.swapped(other):
        assert same(weights(job), other)
        if broken:
            raise RuntimeError
    assert same(weights(job), before)


# -- rewards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.1], "shape"),
        ([[0.1], [0.2]], "shape"),
        ([0.1, float("nan")], "brightness returned NaN or infinity"),
        ([0.1, float("inf")], "brightness returned NaN or infinity"),
    ],
)
def test_a_broken_reward_fails_the_job(world, scores, message):
    class Broken(Brightness):
        def score(self, images, prompts):
            return scores

    with pytest.raises(JobFailure, match=message):
        world.job(reward=Broken()).reward(np.zeros((2, 16, 16, 3), np.uint8), [Prompt("0", "x")] * 2)


def test_a_method_that_declared_no_reward_gets_none(world):
    job = world.job()
    job._reward = None
    with pytest.raises(JobFailure, match=r"did not declare needs\.reward"):
        job.reward(np.zeros((1, 16, 16, 3), np.uint8), [Prompt("0", "x")])


# -- reference ---------------------------------------------------------------------------------------------------------


def velocity(job: Job, world) -> torch.Tensor:
    with torch.no_grad():
        return job.policy.velocity(torch.ones(2, 4, 4, 4), 0.5, world.text(2))


def test_a_loras_reference_is_the_pretrained_model_bit_for_bit(lora, world):
    base = velocity(world.job(), world)
    lora.update(forward(lora).pow(2).mean())
    lora.update(forward(lora).pow(2).mean())
    trained = velocity(lora, world)
    assert not torch.equal(trained, base)
    with lora.policy.reference():
        assert torch.equal(velocity(lora, world), base)
    assert torch.equal(velocity(lora, world), trained)


def test_the_reference_ends_with_an_error_too(lora, world):
    lora.update(forward(lora).pow(2).mean())
    lora.update(forward(lora).pow(2).mean())
    trained = velocity(lora, world)
    with pytest.raises(RuntimeError), lora.policy.reference():
        raise RuntimeError
    assert torch.equal(velocity(lora, world), trained)


def test_lora_trains_the_adapter_only(lora):
    names = [name for name, p in lora.policy.transformer.named_parameters() if p.requires_grad]
    assert names and all("lora_" in name for name in names)
    assert len(names) == len(lora.parameters) == 4  # A and B of to_q in two blocks


# -- state -------------------------------------------------------------------------------------------------------------


def test_a_restored_job_goes_on_as_if_nothing_had_happened(world):
    def fresh() -> Job:
        job: Job = world.job()
        job.train_full(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01, max_grad_norm=1.0)
        return job

    def go_on(job: Job, steps: int) -> None:
        for _ in range(steps):
            job.update((forward(job, 5) - job.noise(5, "n")).pow(2).mean())
            job.prompts(2)
            job.step += 1

    whole, first, second = fresh(), fresh(), fresh()
    go_on(whole, 4)
    go_on(first, 2)
    second.load_state_dict(first.state_dict())
    go_on(second, 2)
    assert same(weights(whole), weights(second))
    assert whole.meter.counts() == second.meter.counts()
    assert torch.equal(whole.pairs(3).indices, second.pairs(3).indices)


def test_a_checkpoint_of_another_configuration_is_refused(job, lora):
    with pytest.raises(BenchError, match="belongs to another configuration"):
        lora.load_state_dict(job.state_dict())
