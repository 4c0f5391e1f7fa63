"""The words of the shape world, and which combinations of them are held out for testing.

A caption is *held out* when it contains at least one held-out combination: a colour bound to a shape,
a pair of shapes, a count of a shape, a size of a shape, or a word on a sign. Training captions contain
none of them, so train and test differ in combination and not only in string, while every single word
of a test caption (shape, colour, number, relation, letter) is known from training.
"""

from __future__ import annotations

from itertools import combinations

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond")
PLURALS = {shape: ("crosses" if shape == "cross" else shape + "s") for shape in SHAPES}

# sRGB, chosen apart in hue so that shading (which changes lightness) never changes the name.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 42, 42),
    "orange": (240, 138, 28),
    "yellow": (238, 214, 40),
    "green": (52, 164, 62),
    "cyan": (48, 192, 212),
    "blue": (48, 84, 210),
    "purple": (132, 58, 184),
    "pink": (240, 98, 178),
}
SIZES = ("small", "", "big")  # "" is the size that a caption leaves out
COUNTS = {2: "two", 3: "three", 4: "four"}
RELATIONS = ("left of", "right of", "above", "below")

# Pronounceable words over twelve letters; the held-out ones are those that are English words.
_VOWELS, _CONSONANTS = "aeo", "chklmnpst"
TEST_WORDS = tuple(
    [
        "no",
        "so",
        "me",
        "he",
        "on",
        "an",
        "at",
        "am",
        "to",
        "as",
        "cat",
        "hat",
        "mat",
        "pan",
        "pen",
        "net",
        "ten",
        "hot",
        "pot",
        "not",
        "ton",
        "son",
        "man",
        "can",
        "map",
        "cap",
        "tap",
        "lap",
        "sat",
        "set",
        "pet",
        "met",
        "let",
        "hen",
        "men",
        "top",
        "hop",
        "mop",
        "cot",
        "lot",
        "sale",
        "pale",
        "male",
        "tale",
        "lake",
        "make",
        "take",
        "cake",
        "tone",
        "note",
        "hole",
        "pole",
        "mole",
        "home",
        "same",
        "name",
        "lane",
        "cone",
        "hope",
        "poke",
        "soak",
        "coal",
        "team",
        "meal",
        "seal",
        "heal",
        "neat",
        "heat",
        "peak",
        "lamp",
        "camp",
        "help",
    ]
)
TRAIN_WORDS = tuple(
    word
    for word in sorted(
        {c + v for c in _CONSONANTS for v in _VOWELS}
        | {v + c for c in _CONSONANTS for v in _VOWELS}
        | {c + v + d for c in _CONSONANTS for v in _VOWELS for d in _CONSONANTS}
        | {c + v + d + w for c in _CONSONANTS for v in _VOWELS for d in _CONSONANTS for w in _VOWELS}
        | {c + v + w + d for c in _CONSONANTS for v in _VOWELS for w in _VOWELS for d in _CONSONANTS if v != w}
    )
    if word not in TEST_WORDS
)

# Latin-square patterns: every shape and every colour loses the same number of partners.
HELD_OUT_BINDINGS = frozenset(
    (color, shape) for i, color in enumerate(COLORS) for j, shape in enumerate(SHAPES) if (i + 3 * j) % 4 == 0
)
HELD_OUT_PAIRS = frozenset(
    frozenset((SHAPES[i], SHAPES[j])) for i, j in combinations(range(len(SHAPES)), 2) if (i + j) % 4 == 1
)
HELD_OUT_COUNTS = frozenset((n, shape) for n in COUNTS for j, shape in enumerate(SHAPES) if (n + j) % 4 == 0)
HELD_OUT_SIZES = frozenset(
    (size, shape) for i, size in enumerate(SIZES) if size for j, shape in enumerate(SHAPES) if (i + j) % 4 == 1
)

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""GenEval's six tasks, by GenEval's names (djghosh13/geneval)."""
