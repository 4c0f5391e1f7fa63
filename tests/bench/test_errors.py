"""A mistyped name ends in one line with the nearest known one."""

from __future__ import annotations

from bench.errors import BenchError, unknown


def test_the_nearest_name_is_proposed():
    error = unknown("method", "sor", ["sft", "soar", "flow_grpo"])
    assert isinstance(error, BenchError)
    assert str(error) == "unknown method 'sor'; did you mean 'soar'?"


def test_without_a_near_name_all_are_listed_in_order():
    assert str(unknown("method", "xyzzy", ["soar", "dpo", "sft"])) == "unknown method 'xyzzy'; known: dpo, sft, soar"


def test_any_iterable_of_names_will_do_and_the_message_is_one_line():
    message = str(unknown("key", "bath_size", iter({"batch_size": 1, "lr": 2})))
    assert message == "unknown key 'bath_size'; did you mean 'batch_size'?"
    assert "\n" not in message
