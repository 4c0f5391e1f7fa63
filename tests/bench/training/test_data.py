from __future__ import annotations

import threading

import pytest
import torch

from bench.backbone.loader import TextCondition
from bench.errors import BenchError
from bench.experiment.toml import parse_size
from bench.suite import Prompt
from bench.training.data import TrainingData
from bench.training.prefetch import Prefetch


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("40GB", 40 * 10**9),
        ("1.5 tb", 15 * 10**11),
        ("512MiB", 2**29),
        ("0B", 0),
        (" 7 kb ", 7000),
        ("2GiB", 2**31),
    ],
)
def test_sizes_are_read_as_people_write_them(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "40", "GB", "-1GB", "nanGB", "4 0GB", "40GB!", "1e3GB", "40 gigs", "٤GB"])
def test_anything_else_is_one_line_that_says_how(text):
    with pytest.raises(BenchError, match=r"is no size; write a number and a unit .* such as 40GB") as error:
        parse_size(text)
    assert "\n" not in str(error.value)


class Clock:
    """Stands still but for what ``read`` adds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("bench.training.prefetch.time.perf_counter", clock)
    return clock


def test_the_next_is_read_on_another_thread_before_it_is_asked_for():
    here, begun, go = threading.get_ident(), threading.Event(), threading.Event()
    threads = []

    def read(key):
        threads.append(threading.get_ident())
        if key == 2:
            begun.set()
            assert go.wait(10)
        return key * 10

    prefetch = Prefetch(read)
    assert prefetch.get(1, 2) == 10
    assert begun.wait(10)  # nobody has asked for 2 yet
    go.set()
    assert prefetch.get(2) == 20
    assert here not in threads
    prefetch.close()


def test_each_key_is_read_once_and_in_order():
    read = []
    prefetch = Prefetch(lambda key: read.append(key) or key)
    keys = [(3, 1), (4,), (0, 2), (9,)]
    assert [prefetch.get(k, n) for k, n in zip(keys, [*keys[1:], None], strict=True)] == keys
    assert read == keys
    prefetch.close()


def test_another_key_than_announced_is_read_all_the_same():
    prefetch = Prefetch(str)
    assert prefetch.get(1, 2) == "1"
    assert prefetch.get(7, 8) == "7"
    assert prefetch.get(8) == "8"
    prefetch.close()


def test_waiting_is_counted_and_reading_ahead_is_not(clock):
    elsewhere, done = threading.Event(), threading.Event()

    def read(key):
        if key == 2:
            elsewhere.wait(60)
        clock.now += 5
        if key == 2:
            done.set()
        return key

    prefetch = Prefetch(read)
    prefetch.get(1)
    assert prefetch.waited == 5  # nothing announced it
    prefetch.get(1, 2)
    assert prefetch.waited == 10
    elsewhere.set()
    assert done.wait(60)  # read while the caller was elsewhere
    prefetch.get(2)
    assert prefetch.waited == 10
    prefetch.close()


def test_an_error_is_raised_for_its_own_key_and_the_next_is_fine(clock):
    def read(key):
        clock.now += 1
        if key == 2:
            raise BenchError("shard two is damaged")
        return key

    prefetch = Prefetch(read)
    assert prefetch.get(1, 2) == 1
    with pytest.raises(BenchError, match="shard two is damaged"):
        prefetch.get(2, 3)
    assert prefetch.get(3) == 3
    prefetch.close()


def test_closing_leaves_no_thread():
    prefetch = Prefetch(str)
    prefetch.get(1, 2)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
    assert threads
    prefetch.close()
    assert not any(thread.is_alive() for thread in threads)


def test_plain_tensors_are_training_data():
    latents, text = torch.arange(24.0).view(3, 2, 2, 2), TextCondition(torch.zeros(2, 3, 4), torch.ones(2, 5))
    prompts = (Prompt("0", "a"), Prompt("1", "b"))
    data = TrainingData(latents, torch.tensor([[2, 2, 2]] * 3), text, prompts, torch.tensor([0, 1, 0]))
    index = torch.tensor([2, 0])
    assert torch.equal(data.latents[index], latents[[2, 0]])
    assert data.text[data.text_of[index]].prompt_embeds.shape == (2, 3, 4)
    data.close()  # nothing to free
