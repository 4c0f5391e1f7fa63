"""Methods from outside: a single file or a package, and which lines of an error are theirs."""

from bench.plugins.files import (
    execute,
    is_path,
    load,
    named,
    one_line,
    origin,
    path_of,
    place,
    place_of,
    register,
    register_all,
    stages_of,
    undeclared,
)

__all__ = [
    "execute",
    "is_path",
    "load",
    "named",
    "one_line",
    "origin",
    "path_of",
    "place",
    "place_of",
    "register",
    "register_all",
    "stages_of",
    "undeclared",
]
