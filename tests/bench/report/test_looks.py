"""A method looks the same everywhere, and its colour can be read as text."""

from __future__ import annotations

import pytest

from bench import registry
from bench.report.looks import BASE_LOOK, HUES, PLACES, looks


def luminance(colour: str) -> float:
    """Relative luminance of a colour: WCAG 2.2, "relative luminance"."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("light", "dark"), [*HUES, (BASE_LOOK.colour, BASE_LOOK.dark)])
def test_every_colour_passes_contrast_as_text(light: str, dark: str) -> None:
    assert min(contrast(light, ground) for ground in ("#ffffff", "#f6f7f9")) >= 4.5
    assert min(contrast(dark, ground) for ground in ("#17181b", "#212327")) >= 4.5


def test_a_method_looks_the_same_whatever_stands_beside_it() -> None:
    first, *others = registry.BUILT_IN["methods"]
    alone = looks([first, "my_variant"])
    assert alone == {name: looks(["base", *others, "another", "my_variant", first])[name] for name in alone}


def test_no_two_rows_look_alike() -> None:
    names = [
        *registry.BUILT_IN["methods"],
        *(f"variant-{i}" for i in range(PLACES - len(registry.BUILT_IN["methods"]))),
    ]
    found = [(look.colour, look.marker) for look in looks(names).values()]
    assert len(set(found)) == PLACES
    assert len(looks([*names, "one more"])) == PLACES + 1


def test_the_order_of_the_rows_changes_nothing() -> None:
    names = [f"row-{i}" for i in range(40)]
    assert looks(names) == looks(reversed(names))
