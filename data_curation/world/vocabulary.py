"""The words of the shape world, and which combinations of them are held out for testing.

A caption is *held out* when it contains at least one held-out combination: a colour bound to a shape,
a pair of shapes, a count of a shape, a size of a shape, a place of a shape, or a word on a sign. Training captions
contain none of them, so train and test differ in combination and not only in string, while every single word
of a test caption (shape, colour, number, relation, place, letter) is known from training.
"""

from __future__ import annotations

from itertools import combinations

SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "heart",
    "cross",
    "ring",
    "diamond",
    "moon",
    "bow",
    "bolt",
    "flag",
)
PLURALS = {shape: ("crosses" if shape == "cross" else shape + "s") for shape in SHAPES}

# sRGB, at least 24 degrees apart in hue, so that shading (which changes lightness) never changes the name.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 42, 42),
    "orange": (236, 136, 30),
    "yellow": (236, 224, 40),
    "lime": (128, 210, 44),
    "green": (44, 150, 60),
    "teal": (36, 178, 138),
    "cyan": (52, 184, 226),
    "blue": (48, 84, 210),
    "purple": (124, 58, 188),
    "pink": (240, 98, 178),
}
SIZES = ("small", "", "big")  # "" is the size that a caption leaves out
PLACES = {
    "": (0, 0),  # the place that a caption leaves out
    "top": (0, -1),
    "top right": (1, -1),
    "right": (1, 0),
    "bottom right": (1, 1),
    "bottom": (0, 1),
    "bottom left": (-1, 1),
    "left": (-1, 0),
    "top left": (-1, -1),
}
"""Where in the picture a single shape stands: the direction from the middle, y pointing down."""
COUNTS = {2: "two", 3: "three", 4: "four", 5: "five"}
RELATIONS = ("left of", "right of", "above", "below")

# Pronounceable words over twelve letters; the held-out ones are English words, and no training word is a caption's own.
_VOWELS, _CONSONANTS = "aeo", "chklmnpst"
_STARTS = ("ch", "cl", "pl", "sc", "sh", "sk", "sl", "sm", "sn", "sp", "st", "th")
_ENDS = ("ch", "ck", "lk", "lm", "lp", "lt", "mp", "nk", "nt", "ps", "sh", "sk", "st", "th", "ts")
_ENGLISH = """
    an am as he me no on so to
    ace ant ash ask can cap cat cot elk elm ham hat hen hop hot lap let lot man map mat men met mop nap net not
    oak pal pan pat pen pet pot sat sea set son tan tap tea ten toe ton
    ache cake calm camp cane cape case cash cast chap chat clam clap coal coat cone cope cost echo heal heap heat help
    hole home hope host lace lake lamp lane last lens loan lock lost make mask mast mate math meal meat mesh
    moat mole moss moth name neat neck nest note oath open pace pack pale palm path peak plan plot pole poem
    post sale salt same seal shop slap slot snap soak soap sock spot stem step stop tack tale tank tape task
    team tent test tone tool
    """
TEST_WORDS = tuple(_ENGLISH.split())
TRAIN_WORDS = tuple(
    sorted(
        (
            {c + v for c in _CONSONANTS for v in _VOWELS}
            | {v + c for c in _CONSONANTS for v in _VOWELS}
            | {c + v + d for c in _CONSONANTS for v in _VOWELS for d in _CONSONANTS}
            | {v + end for v in _VOWELS for end in _ENDS}
            | {c + v + d + w for c in _CONSONANTS for v in _VOWELS for d in _CONSONANTS for w in _VOWELS}
            | {c + v + w + d for c in _CONSONANTS for v in _VOWELS for w in _VOWELS for d in _CONSONANTS if v != w}
            | {c + v + end for c in _CONSONANTS for v in _VOWELS for end in _ENDS}
            | {start + v + d for start in _STARTS for v in _VOWELS for d in _CONSONANTS}
        )
        - {*TEST_WORDS, "at", "the", "top", *COLORS, *SHAPES}
    )
)

# Latin-square patterns: every word loses as many partners of a kind as any other word like it, or one fewer.
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
HELD_OUT_PLACES = frozenset(
    (place, shape) for i, place in enumerate(PLACES) if place for j, shape in enumerate(SHAPES) if (i + j) % 4 == 2
)

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""GenEval's six tasks, by GenEval's names (djghosh13/geneval)."""
