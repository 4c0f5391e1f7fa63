"""Rows are cut into micro-batches of one shape and dealt to processes: each row to one, as many turns on each."""

from __future__ import annotations

import pytest
import torch

from bench.batches import cut, deal, deal_shares


@pytest.mark.parametrize("size", [1, 3, 100])
def test_micro_batches_hold_one_shape_each_and_every_row_once(size):
    shapes = torch.tensor([[4, 8, 8], [4, 4, 16], [4, 8, 8], [4, 16, 4], [4, 8, 8], [4, 8, 8], [4, 4, 16]])
    parts = cut(shapes, size)
    assert sorted(torch.cat(parts).tolist()) == list(range(7))
    assert all(len(part) <= size and len(shapes[part].unique(dim=0)) == 1 for part in parts)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [1, 5, 16])
def test_processes_visit_disjoint_rows_together_all_and_take_as_many_turns(world, rows):
    parts = list(torch.arange(rows).split(2))
    dealt = [deal(parts, rank, world) for rank in range(world)]
    assert len({len(turns) for turns in dealt}) == 1
    visited = [row for turns in dealt for part in turns if not part.padding for row in part.rows.tolist()]
    assert sorted(visited) == list(range(rows))
    assert all(len(part.rows) for turns in dealt for part in turns)


@pytest.mark.parametrize("size", [2, 3, 100])
def test_shares_are_visited_where_they_lie(size):
    shares = ((0, 4), (4, 8), (8, 9))
    chosen = torch.tensor([7, 0, 5, 2, 6, 3])
    dealt = [deal_shares(chosen, shares, size, rank) for rank in range(3)]
    assert len({len(turns) for turns in dealt}) == 1
    for (first, _), turns in zip(shares, dealt, strict=True):
        visited = [first + row for part in turns if not part.padding for row in part.rows.tolist()]
        assert sorted(visited) == sorted(row for row in chosen.tolist() if first <= row < first + 4 and row < 8)
    assert all(part.padding for part in dealt[2])  # none of the chosen rows is its own


def test_micro_batches_of_a_share_do_not_depend_on_the_processes():
    chosen = torch.tensor([7, 0, 5, 2, 6, 3, 1, 4])
    together = [part.rows.tolist() for part in deal_shares(chosen, ((0, 8),), 4, 0)]
    apart = [
        (part.rows + first).tolist()
        for rank, first in ((0, 0), (1, 4))
        for part in deal_shares(chosen, ((0, 4), (4, 8)), 4, rank)
    ]
    assert together == apart == [[0, 2, 3, 1], [7, 5, 6, 4]]


def _in_turn(rows: torch.Tensor, shares: tuple[tuple[int, int], ...], size: int) -> list[list[int]]:
    """Rows of every micro-batch that is no padding, process after process."""
    dealt = [deal_shares(rows, shares, size, rank) for rank in range(len(shares))]
    return [
        (part.rows + first).tolist()
        for (first, _), turns in zip(shares, dealt, strict=True)
        for part in turns
        if not part.padding
    ]


def test_the_random_halves_of_flow_grpo_fill_their_micro_batches():
    # 48 prompts of 24 samples, two updates, micro-batches of 4: 1152 / 2 / 4 = 144 of 4 rows in each update.
    order = torch.randperm(1152, generator=torch.Generator().manual_seed(0))
    halves = [_in_turn(half, ((0, 1152),), 4) for half in order.tensor_split(2)]
    assert [len(parts) for parts in halves] == [144, 144]
    assert {len(part) for parts in halves for part in parts} == {4}
    assert sorted(row for parts in halves for part in parts for row in part) == list(range(1152))


def test_one_row_of_each_group_fills_micro_batches():
    # Sampled DPO: 32 prompts of 24 samples, and one winner of each; micro-batches of 4: 32 / 4 = 8.
    winners = torch.arange(32) * 24 + torch.randint(24, (32,), generator=torch.Generator().manual_seed(0))
    parts = _in_turn(winners, ((0, 768),), 4)
    assert parts == [winners[start : start + 4].tolist() for start in range(0, 32, 4)] and len(parts) == 8


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_all_micro_batches_of_a_share_but_the_last_are_full(size):
    shares = ((0, 24), (24, 48), (48, 60))
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(size))[:31]
    for first, end in shares:
        held = sorted(row for row in rows.tolist() if first <= row < end)
        parts = [part for part in _in_turn(rows, shares, size) if first <= part[0] < end]
        assert [sorted(part) for part in parts] == [held[at : at + size] for at in range(0, len(held), size)]
