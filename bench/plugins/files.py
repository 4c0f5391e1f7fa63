"""Methods from outside the repository: a single file given by its path, and where each method came from."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import keyword
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.method import PostTrainingMethod


@dataclass(frozen=True)
class _File:
    """A file whose method is registered, as it was when it was read."""

    path: Path
    sha256: str


FILES: dict[str, _File] = {}
"""The file of each method that this process was given by its path: name → file."""


def is_path(name: str) -> bool:
    """True if a method is given by the path of a file and not by its name."""
    return name.endswith(".py") or "/" in name


def stages_of(row: str) -> list[str]:
    """Names and paths of a row such as ``sft+./mine.py``; a plus in a path is a part of it."""
    stages: list[str] = []
    for part in row.split("+"):
        if stages and "/" in stages[-1] and not stages[-1].endswith(".py"):
            stages[-1] += f"+{part}"
        else:
            stages.append(part)
    return stages


def named(name: str, folder: Path | None = None) -> str:
    """The registered name of a method that is given by its name or by a path (relative to ``folder``)."""
    return register(path_of(name, folder)) if is_path(name) else name


def path_of(name: str, folder: Path | None = None) -> Path:
    """The absolute path that a user's path means; a relative one starts at ``folder`` or the working directory."""
    try:
        return (folder or Path()).joinpath(Path(name).expanduser()).absolute()
    except RuntimeError as error:  # ~NAME of no user
        raise BenchError(f"the path {name} begins with a user who is not there") from error


def register_all(paths: Iterable[str | Path]) -> None:
    """Register several files. BenchError where two would have the same name."""
    seen: dict[str, Path] = {}
    for path in map(Path, paths):
        if path != seen.setdefault(path.stem, path):
            raise BenchError(f"{seen[path.stem]} and {path} would both be named {path.stem!r}; rename one of them")
        register(path)


def register(path: Path) -> str:
    """Register the one method of a file under the file's stem, for this process, and return that name.

    Raises:
        BenchError: one line for a file that is missing, does not import or does not hold exactly one method; and for a
            file name that is no valid name, or is the name of another method.
    """
    name = path.stem
    if path.is_dir():
        raise BenchError(f"{path} is a folder; name the method's file, such as {path / path.name}.py")
    if not path.is_file():
        raise BenchError(f"the method file {path} is not there")
    if path.suffix != ".py" or not name.isidentifier() or keyword.iskeyword(name):
        raise BenchError(
            f"a method is named after its file, and {path.name!r} gives no name: "
            "rename it to NAME.py, of letters, digits and _"
        )
    source = path.read_bytes()
    file = _File(path, hashlib.sha256(source).hexdigest())
    if FILES.get(name) == file and name in registry.table("methods"):
        return name
    if name not in FILES and name in registry.table("methods"):
        if _is_installed(name, source):
            return name
        raise BenchError(f"{path} would be named {name!r}, and that is another method; rename the file")
    module = execute(path, source)
    method = _only_method(module, path)
    FILES[name] = file
    registry.add("methods", name, f"{module.__name__}:{method.__name__}")
    return name


def origin(name: str) -> Any:
    """Where a method comes from, for records: ``built-in``, a package with its version, or a file with its hash."""
    if name in FILES:
        return {"file": FILES[name].path.name, "sha256": FILES[name].sha256}
    if name in registry.BUILT_IN["methods"]:
        return "built-in"
    point = next(point for point in entry_points(group="bench.methods") if point.name == name)
    package = point.value.partition(":")[0].partition(".")[0]
    return {
        "package": point.dist.name if point.dist else package,
        "version": point.dist.version if point.dist else None,
    }


def load(name: str) -> type[PostTrainingMethod]:
    """The class of a registered method.

    Raises:
        BenchError: one line for an unknown name, a module that does not import, or something that is no method.
    """
    method: type[PostTrainingMethod] = registry.load("methods", name)
    if problem := undeclared(method):
        raise BenchError(f"methods/{name} ({registry.table('methods')[name]}): {problem}")
    return method


def undeclared(method: object) -> str | None:
    """Reason why a class is no method, or None."""
    from bench.method import MethodConfig, Needs, PostTrainingMethod, Traits

    if not (isinstance(method, type) and issubclass(method, PostTrainingMethod)):
        return f"{getattr(method, '__name__', repr(method))} is no subclass of bench.method.PostTrainingMethod"
    if missing := sorted(getattr(method, "__abstractmethods__", ())):
        return f"{method.__name__} does not define {' and '.join(missing)}"
    for attribute, kind in (("Config", MethodConfig), ("needs", Needs), ("traits", Traits)):
        value = getattr(method, attribute, None)
        if attribute == "Config":
            fits, what = isinstance(value, type) and issubclass(value, kind), f"a subclass of {kind.__name__}"
        else:
            fits, what = isinstance(value, kind), f"{kind.__name__}(…)"
        if not fits:
            return f"{method.__name__}.{attribute} is {value!r}; it must be {what}"
    return None


def place(path: str | Path, line: int | None) -> str:
    """``file:line`` as a user reads it: relative to the working directory where the file is below it."""
    path = Path(path)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{line}" if line else str(path)


def place_of(error: BaseException, belongs: Callable[[CodeType], bool]) -> str:
    """``file:line`` of the innermost code that is ``own`` and that an error passed through, or nothing."""
    innermost, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if belongs(code):
            innermost = place(code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return innermost


def one_line(error: BaseException) -> str:
    """``Type: message`` without line breaks."""
    message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def execute(path: Path, source: bytes) -> ModuleType:
    """Import a file from the very bytes that were hashed; no bytecode is left beside it."""
    name = f"bench_plugin_{path.stem}"
    spec = ModuleSpec(name, None, origin=str(path))
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    before, sys.modules[name] = sys.modules.get(name), module  # pydantic looks types up there
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise BenchError(f"{_place_in(path, error)} does not import: {one_line(error)}") from error
    return module


def _place_in(path: Path, error: BaseException) -> str:
    """Where in a file an error came up."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return place(path, error.lineno)
    return place_of(error, lambda code: code.co_filename == str(path)) or place(path, None)


def _only_method(module: ModuleType, path: Path) -> type[PostTrainingMethod]:
    from bench.method import PostTrainingMethod

    methods = [
        value
        for value in dict.fromkeys(value for value in vars(module).values() if isinstance(value, type))  # aliases once
        if issubclass(value, PostTrainingMethod) and value.__module__ == module.__name__
    ]
    concrete = [method for method in methods if not inspect.isabstract(method)] or methods
    if not concrete:
        raise BenchError(f"{path} holds no method: no class in it is a bench.method.PostTrainingMethod")
    if len(concrete) > 1:
        names = ", ".join(method.__name__ for method in concrete)
        raise BenchError(f"{path} holds several methods ({names}); a file given by its path is one method")
    if problem := undeclared(concrete[0]):
        raise BenchError(f"{path}: {problem}")
    return concrete[0]


def _is_installed(name: str, source: bytes) -> bool:
    """True if the method of that name is an installed copy of the same file (or the file itself)."""
    if name in registry.BUILT_IN["methods"]:
        return False
    installed = registry.find(registry.table("methods")[name].partition(":")[0])
    return installed is not None and installed.read_bytes() == source
