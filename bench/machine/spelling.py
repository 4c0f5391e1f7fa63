"""How users spell what means the same: texts with marks around them, and paths of a corpus."""

from __future__ import annotations

import string
from pathlib import Path, PurePath
from typing import Annotated

from pydantic import AfterValidator

from bench import registry


def trimmed(text: str) -> str:
    """A text without white space and byte-order marks around it, which mean nothing there."""
    return text.strip(f"\ufeff{string.whitespace}").strip()


def lines_of(data: bytes) -> list[str]:
    """The lines of a text file that hold something, trimmed. Raises UnicodeDecodeError for what is no UTF-8.

    A line ends where an editor shows its end. Python's ``splitlines`` ends one at U+2028 and U+0085 too, inside a text.
    """
    text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    return [line for line in map(trimmed, text.split("\n")) if line]


def plain_corpus(name: str) -> str:
    """A corpus's name or path in one spelling: ``pics/`` and ``./pics`` are ``pics``. Settings after it stay."""
    path, question, settings = name.partition("?")
    if not path or name in registry.table("corpora"):
        return name
    plain = str(PurePath(path))
    if plain in registry.table("corpora"):  # a folder of that name
        plain = f"./{plain}"
    return f"{plain}{question}{settings}"


def same_corpus(one: str, other: str) -> bool:
    """Whether two names of a corpus lead to the same place, links followed, with the same settings."""
    if one == other:
        return True
    if {one, other} & set(registry.table("corpora")):
        return False
    (path, _, settings), (path_of_other, _, settings_of_other) = one.partition("?"), other.partition("?")
    return settings == settings_of_other and Path(path).resolve() == Path(path_of_other).resolve()


CorpusName = Annotated[str, AfterValidator(plain_corpus)]
"""A corpus in a configuration."""
