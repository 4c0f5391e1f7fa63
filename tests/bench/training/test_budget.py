"""Budgets: an amount in a currency, or one line that says what is wrong."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.training.budget import CURRENCIES, Budget
from bench.training.meter import Meter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flops=2e13", Budget("flops", 2e13)),
        ("steps=5000", Budget("steps", 5000.0)),
        ("device-seconds=0.5", Budget("device-seconds", 0.5)),
    ],
)
def test_a_budget_is_read_and_printed(text, expected):
    assert Budget.parse(text) == expected
    assert Budget.parse(str(expected)) == expected


@pytest.mark.parametrize("amount", ["", "0", "-3", "nan", "inf", "1e999", "many", "1=2"])
def test_an_amount_that_makes_no_sense_is_refused(amount):
    with pytest.raises(BenchError, match=r"needs a positive amount, e\.g\. steps="):
        Budget.parse(f"steps={amount}")


@pytest.mark.parametrize("currency", ["steps", "updates"])
def test_less_than_one_step_is_refused(currency):
    with pytest.raises(BenchError, match=f"'{currency}=0.5' is less than one of the {currency}"):
        Budget.parse(f"{currency}=0.5")
    assert Budget.parse(f"{currency}=1").amount == 1


@pytest.mark.parametrize("currency", CURRENCIES)
def test_the_example_of_an_error_is_a_budget(currency):
    with pytest.raises(BenchError) as caught:
        Budget.parse(f"{currency}=nan")
    assert Budget.parse(str(caught.value).rpartition(" ")[2]).currency == currency


def test_a_currency_without_an_amount_is_refused():
    with pytest.raises(BenchError, match="needs a positive amount"):
        Budget.parse("flops")


def test_a_mistyped_currency_gets_the_nearest_name():
    with pytest.raises(BenchError, match="unknown budget currency 'flop'; did you mean 'flops'"):
        Budget.parse("flop=3")


def test_the_meter_knows_every_currency():
    meter = Meter(flops=3, updates=7, steps=4, seconds=5.0)
    assert [meter.spent(currency) for currency in CURRENCIES] == [3.0, 7.0, 4.0, 5.0]


def test_the_meters_counts_hold_no_clock_and_no_memory():
    counts = Meter(seconds=1.0, peak_memory=2).counts()
    assert set(counts) == {
        "flops", "steps", "updates", "forwards", "reference_forwards", "backwards", "images", "reward_calls", "pairs",
    }  # fmt: skip


def test_the_meters_state_round_trips():
    meter, again = Meter(flops=1.5, steps=2, updates=3, forwards=4, seconds=5.5, peak_memory=6), Meter()
    again.load(meter.state())
    assert again == meter
