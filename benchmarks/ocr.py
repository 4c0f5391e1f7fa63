"""OCR accuracy as Flow-GRPO defines it: what a prompt asks for, and how much of it an engine has read."""

from __future__ import annotations


def wanted_text(prompt: str) -> str:
    """The text that a prompt asks for: what stands in its first pair of double quotes. ValueError if there is none.

    The release takes ``prompt.split('"')[1]`` (yifan123/flow_grpo @ ac4c86e, ``flow_grpo/ocr.py``). That is the same
    for its 1,018 prompts, but also takes what follows a quote that is never closed, which is refused here.
    """
    parts = prompt.split('"')
    if len(parts) < 3 or not normalise(parts[1]):
        raise ValueError(f"the prompt {prompt!r} has no text in double quotes")
    return parts[1]


def normalise(text: str) -> str:
    """Lower case without spaces."""
    return text.replace(" ", "").lower()


def levenshtein(a: str, b: str) -> int:
    """Least number of insertions, deletions and substitutions that turn ``a`` into ``b``."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


def ocr_accuracy(read: str, wanted: str) -> float:
    """Flow-GRPO's formula, in [0, 1]: 1 if ``wanted`` occurs in ``read``, else ``1 - min(distance, n) / n``.

    n is the length of ``wanted``; both are compared in lower case without spaces (yifan123/flow_grpo @ ac4c86e,
    ``flow_grpo/ocr.py``).
    """
    read, wanted = normalise(read), normalise(wanted)
    distance = 0 if wanted in read else min(levenshtein(read, wanted), len(wanted))
    return 1 - distance / len(wanted)
