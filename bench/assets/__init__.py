"""Prompt files and models from outside: the table, the kinds of asset, and how each is brought here."""

from bench.assets.table import STAND_IN, TABLE, cache_folder, fetch, get, here, identity, of_suite, path, state

__all__ = ["STAND_IN", "TABLE", "cache_folder", "fetch", "get", "here", "identity", "of_suite", "path", "state"]
