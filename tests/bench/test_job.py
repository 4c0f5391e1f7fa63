"""The metered doors: what a method is given, what it is charged, and what is refused."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import fakes
import numpy as np
import pytest
import torch
from fakes import CAPTIONS, Brightness, rows, same, take, weights

from bench import flow
from bench.batches import PreferencePairs
from bench.encoded.ahead import AheadText
from bench.errors import BenchError, JobFailure
from bench.flops import Flops, decode_cost, meta_twin, transformer_cost
from bench.job import Job
from bench.method import Needs
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
    pairs = take(job, count)
    return job.policy.velocity(pairs.latents, 0.5, pairs.text)


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 5, 12, 31])
def test_every_epoch_visits_every_pair_once_and_in_another_order(job, batch):
    order = torch.cat([take(job, batch).indices for _ in range(-(-4 * PAIRS // batch))])[: 4 * PAIRS]
    epochs = order.view(4, PAIRS).tolist()
    assert all(sorted(epoch) == list(range(PAIRS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_pairs_bring_their_own_latents_and_captions(job, world):
    pairs = take(job, 5)
    for row, index in enumerate(pairs.indices.tolist()):
        caption = index % len(CAPTIONS)  # as the corpus deals them out
        assert torch.equal(pairs.latents[row], world.data.latents[index])
        assert torch.equal(pairs.text.prompt_embeds[row], world.data.text.prompt_embeds[caption])
        assert torch.equal(pairs.text.pooled_prompt_embeds[row], world.data.text.pooled_prompt_embeds[caption])


def test_the_order_depends_on_the_seed_and_not_on_the_batch(world):
    one, two, other = world.job(), world.job(), world.job(seed=1)
    in_sevens = torch.cat([take(one, 7).indices for _ in range(6)])
    assert torch.equal(in_sevens, torch.cat([take(two, 3).indices for _ in range(14)]))
    assert not torch.equal(in_sevens, torch.cat([take(other, 7).indices for _ in range(6)]))


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
        assert torch.equal(take(mixed, 5).indices, take(pure, 5).indices)
        assert asked == prompts.prompts(2).prompts


def preferred(job: Job, count: int) -> PreferencePairs:
    """The first micro-batch of a step's preference pairs: all of them, without a micro-batch size."""
    (pairs,) = job.preference_pairs(count)
    return pairs


@pytest.mark.parametrize("batch", [1, 3, 5, 12])
def test_every_epoch_visits_every_preference_pair_once_and_in_another_order(world, batch):
    job, size = world.job(), len(world.data.preferences.pairs)
    order = torch.cat([preferred(job, batch).indices for _ in range(-(-4 * size // batch))])[: 4 * size]
    epochs = order.view(4, size).tolist()
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_preference_pairs_bring_winner_loser_and_their_caption(world):
    data = world.data.preferences
    turned = replace(data, pairs=torch.tensor([[5, 0], [1, 6], [7, 2]]))  # the first and the last won by the later one
    pairs = preferred(world.job(data=replace(world.data, preferences=turned)), 3)
    assert sorted(pairs.indices.tolist()) == [0, 1, 2] and pairs.rows.tolist() == [0, 1, 2]
    for row, index in enumerate(pairs.indices.tolist()):
        winner, loser = turned.pairs[index].tolist()
        assert torch.equal(pairs.winners[row], world.data.latents[winner])
        assert torch.equal(pairs.losers[row], world.data.latents[loser])
        caption = winner % len(CAPTIONS)
        assert torch.equal(pairs.text.prompt_embeds[row], world.data.text.prompt_embeds[caption])
        assert torch.equal(pairs.text.pooled_prompt_embeds[row], world.data.text.pooled_prompt_embeds[caption])


def test_micro_batches_of_preference_pairs_are_the_batch_in_pieces(world):
    whole, pieces = world.job(), world.job(micro_batch=3)
    for _ in range(3):
        expected, found = preferred(whole, 7), list(pieces.preference_pairs(7))
        assert [len(p) for p in found] == [3, 3, 1]
        for part in ("indices", "rows", "winners", "losers"):
            assert torch.equal(torch.cat([getattr(p, part) for p in found]), getattr(expected, part))
        assert torch.equal(torch.cat([p.text.prompt_embeds for p in found]), expected.text.prompt_embeds)
    assert whole.meter.pairs == pieces.meter.pairs == 21


def test_preference_pairs_of_different_shapes_come_apart_and_none_is_lost(world):
    data = world.data.preferences
    shapes = torch.tensor([[4, 4, 6] if i % len(CAPTIONS) == 3 else [4, 4, 4] for i in range(PAIRS)])

    class Latents:
        def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
            (shape,) = shapes[index].unique(dim=0).tolist()
            return index.float().view(-1, 1, 1, 1).expand(-1, *shape)

    pictures = replace(data.pictures, latents=Latents(), shapes=shapes)
    job = world.job(data=replace(world.data, preferences=replace(data, pictures=pictures)))
    parts = list(job.preference_pairs(5))
    assert sorted(i for p in parts for i in p.indices.tolist()) == list(range(5))
    assert {p.latent_shape for p in parts} == {(4, 4, 4), (4, 4, 6)}
    for part in parts:
        found = torch.stack([part.winners[:, 0, 0, 0], part.losers[:, 0, 0, 0]], dim=1)
        assert torch.equal(found, data.pairs[part.indices].float())


def test_pairs_and_preference_pairs_do_not_disturb_each_other(world):
    mixed, pure, alone = world.job(), world.job(), world.job()
    for _ in range(7):
        assert torch.equal(preferred(mixed, 2).indices, preferred(alone, 2).indices)
        assert torch.equal(take(mixed, 5).indices, take(pure, 5).indices)


def test_a_restored_job_goes_on_with_the_next_preference_pair(world):
    whole, first, second = (world.job() for _ in range(3))
    for job in (whole, first, second):
        job.train_full(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0)
    expected = [preferred(whole, 2).indices.tolist() for _ in range(4)]
    found = [preferred(first, 2).indices.tolist() for _ in range(2)]
    state = fakes.session_of(first).state_dict()
    preferred(first, 1)  # after the state was taken, which it must not change
    fakes.session_of(second).load_state_dict(state)
    assert found + [preferred(second, 2).indices.tolist() for _ in range(2)] == expected


def test_a_method_that_declared_no_preference_pairs_gets_none(world):
    job = world.job(data=replace(world.data, preferences=None))
    with pytest.raises(JobFailure, match=r"did not declare needs\.preference_pairs"):
        preferred(job, 1)


def test_a_method_that_declared_no_pairs_gets_none(world):
    job = world.job(data=replace(world.data, latents=None))
    with pytest.raises(JobFailure, match=r"did not declare needs\.pairs"):
        take(job, 1)


def test_a_method_that_declared_no_prompts_gets_none(world):
    with pytest.raises(JobFailure, match=r"did not declare needs\.prompts"):
        world.job(data=replace(world.data, prompts=())).prompts(1)


# -- noise -------------------------------------------------------------------------------------------------------------


def test_noise_is_a_function_of_seed_step_row_and_stream(world):
    def draw(seed: int = 0, step: int = 0, stream: str = "a") -> torch.Tensor:
        job = world.job(seed=seed)
        fakes.session_of(job).ledger.step = step
        return job.noise(rows(2), stream)

    assert torch.equal(draw(), draw())
    variants = [*draw(), *draw(seed=1), *draw(step=1), *draw(stream="b")]
    assert len({tuple(v.flatten().tolist()) for v in variants}) == 8
    assert draw().shape == (2, 4, 4, 4)


def test_a_row_draws_the_same_in_any_micro_batch(world):
    job, whole = world.job(), rows(6)
    for draw in (job.normal, job.uniform):
        parts = [draw(replace(whole, rows=part), "x", 3) for part in whole.rows.split(4)]
        assert torch.equal(draw(whole, "x", 3), torch.cat(parts))
    assert not torch.equal(job.normal(whole, "x", 3), job.uniform(whole, "x", 3))


def test_draws_have_the_distribution_they_say(world):
    job, many = world.job(), rows(4000)
    normal, uniform = job.normal(many, "n", 4).double(), job.uniform(many, "u", 4).double()
    assert abs(normal.mean()) < 0.04 and abs(normal.var() - 1) < 0.06 and abs(normal.pow(4).mean() - 3) < 0.4
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.012
    assert abs(torch.corrcoef(normal.T).triu(1)).max() < 0.08


def test_doors_leave_the_global_generators_alone(world):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    job = world.job()
    job.train_lora(
        rank=2, alpha=4, target_modules=["attn.to_q"], lr=0.1, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0
    )
    take(job, 3), job.prompts(3), job.noise(rows(2), "x"), job.decode(job.noise(rows(1), "y"))
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
    job.accumulate(forward(job, 3).mean(), 1)
    job.update()
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
        job.policy.guided_velocity(job.noise(rows(3), "x"), 0.5, world.text(3), 4.5)
        assert job.meter.forwards == 6
        job.policy.guided_velocity(job.noise(rows(3), "x"), 0.5, world.text(3), 1.0)
    assert job.meter.forwards == 9


def test_guidance_joins_both_branches(job, world):
    z, text = job.noise(rows(3), "x"), world.text(3)
    with torch.no_grad():
        guided = job.policy.guided_velocity(z, torch.tensor([0.2, 0.5, 0.9]), text, 4.5)
        conditional = job.policy.velocity(z, torch.tensor([0.2, 0.5, 0.9]), text)
        unconditional = job.policy.unconditional_velocity(z, torch.tensor([0.2, 0.5, 0.9]))
    expected = unconditional.double() + 4.5 * (conditional.double() - unconditional.double())
    torch.testing.assert_close(guided.double(), expected, rtol=1e-4, atol=1e-5)


def test_sampling_is_charged_per_step_and_follows_the_schedule(job, world):
    noise, text = job.noise(rows(2), "x"), world.text(2)
    latents = job.sample(noise, text, steps=3, guidance_scale=2.0)
    assert (job.meter.forwards, job.meter.backwards) == (2 * 2 * 3, 0)
    sigmas, expected = job.policy.sigmas(3), noise
    assert sigmas[0] == 1 and sigmas[-1] == 0 and len(sigmas) == 4
    with torch.no_grad():
        for i in range(3):
            velocity = job.policy.guided_velocity(expected, sigmas[i], text, 2.0)
            expected = flow.euler(expected, velocity, sigmas[i], sigmas[i + 1])
    assert torch.equal(latents, expected) and not latents.requires_grad


def test_a_forward_of_the_reference_costs_no_adapter(lora, world):
    job, bare = lora, world.job().policy.transformer.requires_grad_(False)
    pairs = take(job, 3)
    job.policy.velocity(pairs.latents, 0.5, pairs.text)
    adapted = job.meter.counts()
    with torch.no_grad(), job.policy.reference():
        job.policy.velocity(pairs.latents, 0.5, pairs.text)
    assert job.meter.forwards == 6 and job.meter.reference_forwards == 3 and adapted["reference_forwards"] == 0
    cost = transformer_cost(bare, job.latent_shape, pairs.text.prompt_embeds.shape[1])
    assert job.meter.flops - adapted["flops"] == 3 * cost.forward
    job.policy.velocity(pairs.latents, 0.5, pairs.text)
    assert job.meter.flops == 2 * adapted["flops"] + 3 * cost.forward and job.meter.reference_forwards == 3


class Costly(Brightness):
    flops_per_image = 1000.0


def test_decoding_and_rewards_are_charged(world):
    job = world.job(reward=Costly())
    images = job.decode(job.noise(rows(3), "x"))
    decoding = job.meter.flops
    assert images.shape == (3, 16, 16, 3) and images.dtype == np.uint8
    assert job.meter.images == 3 and decoding > 0
    scores = job.reward(images, [Prompt("0", "x")] * 3)
    assert job.meter.reward_calls == 3 and job.meter.flops == decoding + 3000
    np.testing.assert_allclose(scores.numpy(), images.reshape(3, -1).mean(1) / 255, rtol=1e-6)


def test_decoding_costs_the_same_per_image_however_many(job):
    job.decode(job.noise(rows(1), "x"))
    one = job.meter.flops
    job.decode(job.noise(rows(5), "x"))
    assert job.meter.flops == 6 * one


def decoding(world) -> Flops:
    """What decoding one picture and its gradient cost, counted apart."""
    with world.backbone.vae_loaded() as vae:
        return decode_cost(meta_twin(vae), world.backbone.latent_shape)


def test_decoding_costs_what_the_shape_of_the_latents_costs(job, world):
    """With aspect buckets the pairs of a batch are no squares."""
    for shape in ((4, 4, 4), (4, 4, 8)):
        before = job.meter.flops
        job.decode(torch.zeros(2, *shape))
        with world.backbone.vae_loaded() as vae:
            assert job.meter.flops - before == 2 * decode_cost(meta_twin(vae), shape).forward


def test_pictures_with_a_gradient_are_the_decoded_ones_to_rounding(job):
    latents = job.noise(rows(5), "x")
    pixels, images = job.decode_with_gradient(latents), job.decode(latents)
    assert pixels.shape == (5, 3, 16, 16) and pixels.dtype == torch.float32
    assert pixels.min() >= 0 and pixels.max() <= 1
    exact = 255 * pixels.detach().double().permute(0, 2, 3, 1).numpy()
    assert abs(exact - images).max() <= 0.5 + 1e-4  # the nearest of 256, float32's rounding allowed


def test_the_gradient_of_decoded_pictures_is_that_of_finite_differences(job):
    latents = job.noise(rows(3), "x").requires_grad_()
    weight = torch.linspace(-1, 1, 3 * 3 * 16 * 16).reshape(3, 3, 16, 16)

    def value(at: torch.Tensor) -> torch.Tensor:
        return (job.decode_with_gradient(at).double() * weight).sum()

    (gradient,) = torch.autograd.grad(value(latents), latents)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    step = gradient / gradient.norm()
    with torch.no_grad():
        ahead, behind = value(latents + 1e-2 * step), value(latents - 1e-2 * step)
    assert float((ahead - behind) / 2e-2) == pytest.approx(float(gradient.norm()), rel=2e-3)


def test_decoding_with_a_gradient_is_charged_with_its_backward(job, world):
    cost, latents = decoding(world), job.noise(rows(3), "x")
    job.decode_with_gradient(latents)
    assert (job.meter.images, job.meter.flops) == (3, 3 * (cost.forward + cost.backward))
    with torch.no_grad():
        pixels = job.decode_with_gradient(latents)
    assert not pixels.requires_grad
    assert (job.meter.images, job.meter.flops) == (6, 3 * (2 * cost.forward + cost.backward))
    job.decode(latents)
    assert (job.meter.images, job.meter.flops) == (9, 3 * (3 * cost.forward + cost.backward))
    assert cost.backward > 0 and cost.forward > 0 and (job.meter.forwards, job.meter.backwards) == (0, 0)


def test_a_differentiable_reward_is_charged_twice_and_without_a_graph_once(world):
    job = world.job(reward=Costly())
    pixels, prompts = torch.full((3, 3, 16, 16), 0.25, requires_grad=True), [Prompt("0", "x")] * 3
    scores = job.differentiable_reward(pixels, prompts)
    assert scores.tolist() == [0.25] * 3
    assert (job.meter.reward_calls, job.meter.flops) == (3, 6000)
    (gradient,) = torch.autograd.grad(scores.sum(), pixels)
    np.testing.assert_allclose(gradient.numpy(), 1 / (3 * 16 * 16), rtol=1e-6)
    with torch.no_grad():
        assert not job.differentiable_reward(pixels, prompts).requires_grad
    assert (job.meter.reward_calls, job.meter.flops) == (6, 9000)


def test_evaluation_is_never_charged(job):
    with fakes.session_of(job).ledger.unmetered():
        forward(job, 2)
    assert (job.meter.forwards, job.meter.flops) == (0, 0)
    forward(job, 2)
    assert job.meter.forwards == 2


def test_charges_are_whole_numbers_however_large(job):
    fakes.session_of(job).ledger.meter.flops = 10**20
    with torch.no_grad():
        forward(job, 1)
    cost = transformer_cost(job.policy.transformer, job.latent_shape, job.policy.null.prompt_embeds.shape[1])
    assert job.meter.flops == 10**20 + cost.forward


# -- micro-batches -----------------------------------------------------------------------------------------------------


def test_micro_batches_are_the_batch_in_pieces(world):
    whole, pieces = world.job(), world.job(micro_batch=4)
    for _ in range(3):
        expected, found = take(whole, 10), list(pieces.pairs(10))
        assert [len(p) for p in found] == [4, 4, 2]
        assert torch.equal(torch.cat([p.indices for p in found]), expected.indices)
        assert torch.equal(torch.cat([p.rows for p in found]), expected.rows)
        assert torch.equal(torch.cat([p.latents for p in found]), expected.latents)
    assert whole.meter.counts() == pieces.meter.counts()


def test_pairs_of_different_shapes_come_apart_and_none_is_lost(world):
    shapes = torch.tensor([[4, 4, 6] if i % 3 == 0 else [4, 4, 4] for i in range(PAIRS)])

    class Latents:
        def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
            (shape,) = shapes[index].unique(dim=0).tolist()
            return index.float().view(-1, 1, 1, 1).expand(-1, *shape)

    job = world.job(data=replace(world.data, latents=Latents(), shapes=shapes), micro_batch=3)
    parts = list(job.pairs(PAIRS))
    assert sorted(i for p in parts for i in p.indices.tolist()) == list(range(PAIRS))
    assert {p.latent_shape for p in parts} == {(4, 4, 6), (4, 4, 4)} and max(map(len, parts)) == 3
    assert all(torch.equal(p.latents[:, 0, 0, 0], p.indices.float()) for p in parts)
    job.train_full(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0)
    with torch.no_grad():
        costs = []
        for part in (parts[0], parts[-1]):
            before = job.meter.flops
            job.policy.velocity(part.latents, 0.5, part.text)
            costs.append((job.meter.flops - before) / len(part))
    assert costs[0] != costs[1]  # a larger picture is charged more


def test_prompts_are_repeated_and_kept_together(world):
    batch = world.job().prompts(2, repeat=3)
    assert [p.text for p in batch.prompts] == [batch.prompts[0].text] * 3 + [batch.prompts[3].text] * 3
    assert batch.rows.tolist() == list(range(6)) and batch.shares == ((0, 6),) and len(batch.text) == 6


def test_parts_of_a_share_visit_the_rows_asked_for_once(world):
    job = world.job(micro_batch=4)
    batch = job.prompts(3, repeat=4)
    asked = torch.tensor([9, 2, 7, 3, 0, 11])
    parts = [part.tolist() for part in job.parts(batch, asked)]
    assert parts == [[2, 7, 3, 0], [9, 11]]
    assert [p.tolist() for p in job.parts(batch)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


# -- updates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_fails_the_job_and_moves_nothing(job, value):
    before = weights(job)
    job.accumulate(forward(job).pow(2).mean() * value, 1)
    with pytest.raises(JobFailure, match=f"^the loss is {value} at step 1$"):
        job.update()
    assert same(before, weights(job)) and job.meter.updates == 0


def test_a_gradient_that_is_not_finite_fails_the_job_and_moves_nothing(job):
    before = weights(job)
    job.accumulate(forward(job).abs().mul(0).sum().sqrt(), 1)  # sqrt has an infinite slope at 0
    with pytest.raises(JobFailure, match="the gradient norm is"):
        job.update()
    assert same(before, weights(job)) and job.meter.updates == 0


def test_an_update_without_trained_parameters_fails_the_job(world):
    with pytest.raises(JobFailure, match="chose nothing to train"):
        world.job().update()


def test_an_update_without_a_loss_fails_the_job(job):
    with pytest.raises(JobFailure, match=r"without job\.accumulate"):
        job.update()


def test_accumulated_gradients_are_averaged_over_their_items(world):
    jobs = [world.job(), world.job()]
    for job in jobs:
        job.train_full(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0)
    parameter = [job.parameters[0] for job in jobs]
    jobs[0].accumulate(parameter[0].sum(), 1)
    jobs[0].accumulate(5 * parameter[0].sum(), 2)
    jobs[1].accumulate(2 * parameter[1].sum(), 1)
    norms = []
    for job in jobs:
        job.update()
        norms.append(fakes.finish_step(job)["grad_norm"])
    assert norms[0] == norms[1] == pytest.approx(2 * parameter[0].numel() ** 0.5)
    assert same(weights(jobs[0]), weights(jobs[1]))
    assert all(p.grad is None for p in jobs[0].parameters)


def test_the_update_is_adamw_on_the_clipped_gradient(world):
    job = world.job()
    job.train_full(lr=0.1, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=0.5)
    parameter, before = job.parameters[0], job.parameters[0].detach().double().clone()
    job.accumulate(parameter.sum(), 1)
    job.update()
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
        (None, "brightness returned None for 2 images, not a list of numbers"),
        ([None, 0.1], r"brightness returned \[None, 0.1\] for 2 images, not a list of numbers"),
        ([[0.1], [0.2, 0.3]], "not a list of numbers"),
    ],
)
def test_a_broken_reward_fails_the_job(world, scores, message):
    class Broken(Brightness):
        def score(self, images, prompts):
            return scores

    with pytest.raises(JobFailure, match=message):
        world.job(reward=Broken()).reward(np.zeros((2, 16, 16, 3), np.uint8), [Prompt("0", "x")] * 2)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (torch.tensor(0.1), "shape"),
        (torch.tensor([[0.1], [0.2]]), "shape"),
        (torch.tensor([0.1, float("nan")]), "brightness returned NaN or infinity"),
        ([0.1, 0.2], r"brightness returned \[0.1, 0.2\], not a tensor"),
        (torch.tensor([0.1, 0.2]), "brightness returned scores without a gradient to the pictures"),
    ],
)
def test_a_broken_differentiable_reward_fails_the_job(world, scores, message):
    class Broken(Brightness):
        def differentiable_score(self, pixels, prompts):
            return scores

    with pytest.raises(JobFailure, match=message):
        pixels = torch.zeros(2, 3, 16, 16, requires_grad=True)
        world.job(reward=Broken()).differentiable_reward(pixels, [Prompt("0", "x")] * 2)


def test_a_method_that_declared_no_differentiable_reward_gets_none(world):
    job = world.job()
    fakes.session_of(job).grant(Needs(reward=True))
    with pytest.raises(JobFailure, match=r"did not declare needs\.differentiable_reward"):
        job.differentiable_reward(torch.zeros(1, 3, 16, 16), [Prompt("0", "x")])


def test_a_method_that_declared_no_reward_gets_none(world):
    job = world.job()
    fakes.session_of(job).grant(Needs(prompts=True))
    with pytest.raises(JobFailure, match=r"did not declare needs\.reward"):
        job.reward(np.zeros((1, 16, 16, 3), np.uint8), [Prompt("0", "x")])


def test_the_norm_that_is_logged_is_the_mean_of_a_steps_updates(job):
    norms = []
    for _ in range(2):
        pairs = take(job, 3)
        job.accumulate((job.policy.velocity(pairs.latents, 0.5, pairs.text) ** 2).mean((1, 2, 3)).sum(), len(pairs))
        norms.append(torch.stack([p.grad.norm() for p in job.parameters]).norm().item() / 3)
        job.update()
    assert fakes.finish_step(job)["grad_norm"] == pytest.approx(sum(norms) / 2, rel=1e-5)
    assert norms[0] != norms[1]


def test_the_next_steps_prompts_are_encoded_while_this_one_trains(world, monkeypatch):
    asked: list[tuple[str, list[int]]] = []
    text = AheadText(world.backbone, [p.text for p in world.data.prompts], torch.float32)
    for name in ("announce", "__getitem__"):
        usual = getattr(AheadText, name)
        monkeypatch.setattr(
            AheadText,
            name,
            lambda self, rows, name=name, usual=usual: (asked.append((name, rows.tolist())), usual(self, rows))[1],
        )
    job = world.job(data=replace(world.data, text=text, ahead=text))
    for _ in range(3):
        job.prompts(2)
    text.close()
    announced = [rows for name, rows in asked if name == "announce"]
    taken = [rows for name, rows in asked if name == "__getitem__"]
    assert announced[:-1] == taken[1:] and len(taken) == 3


# -- reference ---------------------------------------------------------------------------------------------------------


def velocity(job: Job, world) -> torch.Tensor:
    with torch.no_grad():
        return job.policy.velocity(torch.ones(2, 4, 4, 4), 0.5, world.text(2))


def learn(job: Job) -> None:
    for _ in range(2):
        job.accumulate(forward(job).pow(2).mean(), 1)
        job.update()


def test_a_reward_that_is_waited_for_later_is_the_same_and_costs_the_same(world, monkeypatch):
    """With the thread that a GPU's job has, and without."""
    from concurrent.futures import ThreadPoolExecutor

    thread = ThreadPoolExecutor(1)
    now, later, threaded = world.job(), world.job(), world.job()
    images = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)
    prompts = [Prompt("0", "x")] * 2
    expected = now.reward(images, prompts)
    assert torch.equal(later.reward_later(images, prompts)(), expected)
    session = fakes.session_of(threaded)
    with monkeypatch.context() as on_a_gpu:
        on_a_gpu.setattr(session.engine, "device", torch.device("cuda"))
        on_a_gpu.setattr(session.engine, "thread", lambda name: thread)
        wait = threaded.reward_later(images, prompts)
    assert torch.equal(wait(), expected)
    assert now.meter.counts() == later.meter.counts() == threaded.meter.counts()
    session.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        thread.submit(print)


def test_a_loras_reference_is_the_pretrained_model_bit_for_bit(lora, world):
    base = velocity(world.job(), world)
    learn(lora)
    trained = velocity(lora, world)
    assert not torch.equal(trained, base)
    with lora.policy.reference():
        assert torch.equal(velocity(lora, world), base)
    assert torch.equal(velocity(lora, world), trained)


def test_the_reference_ends_with_an_error_too(lora, world):
    learn(lora)
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
            job.accumulate((forward(job, 5) - job.noise(rows(5), "n")).pow(2).mean(), 1)
            job.update()
            job.prompts(2)
            fakes.finish_step(job)

    whole, first, second = fresh(), fresh(), fresh()
    go_on(whole, 4)
    go_on(first, 2)
    fakes.session_of(second).load_state_dict(fakes.session_of(first).state_dict())
    go_on(second, 2)
    assert same(weights(whole), weights(second))
    assert whole.meter.counts() == second.meter.counts()
    assert torch.equal(take(whole, 3).indices, take(second, 3).indices)


def test_a_checkpoint_of_another_configuration_is_refused(job, lora):
    with pytest.raises(BenchError, match="belongs to another configuration"):
        fakes.session_of(lora).load_state_dict(fakes.session_of(job).state_dict())


def test_a_method_finds_none_of_what_the_harness_does_with_a_job(job):
    for name in ("unmetered", "finish_step", "restart", "save_trained", "grant", "go_to", "state_dict", "close"):
        assert not hasattr(job, name)
    job.meter.flops = -(10**9)  # a copy
    assert job.meter.flops == 0
