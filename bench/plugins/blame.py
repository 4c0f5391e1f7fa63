"""Which files hold a method: a failure names the place in the plugin's file, not in the harness."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from bench.plugins import place, place_of

HARNESS = f"{Path(__file__).parents[1]}/"


@dataclass(frozen=True)
class MethodFiles:
    """The files of a method: those of its classes, and what lies beside them in the same package."""

    files: frozenset[str]
    folders: tuple[str, ...]

    @staticmethod
    def of(method: type[Any]) -> MethodFiles:
        """Of a method's class, without the harness."""
        files: set[str] = set()
        folders: set[str] = set()
        for kind in method.__mro__:
            file = getattr(sys.modules.get(kind.__module__), "__file__", None)
            package = sys.modules.get(kind.__module__.rpartition(".")[0])
            if file is None or file.startswith(HARNESS):
                continue
            if kind.__module__.partition(".")[0] in sys.stdlib_module_names:
                continue
            files.add(file)
            folders.update(f"{folder}/" for folder in getattr(package, "__path__", ()))
        return MethodFiles(frozenset(files), tuple(sorted(folders)))

    def __contains__(self, frame: FrameType) -> bool:
        return self._holds(frame.f_code)

    def of_error(self, error: BaseException) -> str:
        """``file:line`` of the innermost call of the method that an error passed through, or nothing."""
        return place_of(error, self._holds)

    def of_call(self) -> str:
        """``file:line`` of the innermost call of the method on the stack, or nothing."""
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame not in self:
            frame = frame.f_back
        return place(frame.f_code.co_filename, frame.f_lineno) if frame is not None else ""

    def of_definition(self, function: Callable[..., Any]) -> str:
        """``file:line`` of a function if it is in the method's files, or nothing."""
        code: CodeType | None = getattr(getattr(function, "__wrapped__", function), "__code__", None)
        return place(code.co_filename, code.co_firstlineno) if code and self._holds(code) else ""

    def _holds(self, code: CodeType) -> bool:
        return code.co_filename in self.files or code.co_filename.startswith(self.folders)
