"""Find a pipeline's folder: a local one, or one of the Hugging Face hub through its cache. Every failure is one line.

Of a hub repository only what the harness reads is fetched: configs, tokenizers, safetensors in the pipeline's own
layout, and the licence. Not fetched are single-file checkpoints, fp16 and other variants, ONNX and Flax exports, and
pickles.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import re
from fnmatch import fnmatch
from pathlib import Path

from bench.backbone.family import DRAWN, STEMS, read_json
from bench.errors import BenchError, unknown

KNOWN = (
    "stabilityai/stable-diffusion-3.5-medium",
    "stabilityai/stable-diffusion-3.5-large",
    "black-forest-labs/FLUX.1-dev",
    "stabilityai/stable-diffusion-xl-base-1.0",
)
"""Hub ids that the paper uses: its backbone and its context rows. Any other id of the same families works as well."""

_WEIGHTED = sorted({part for family in DRAWN for part in family.parts})
_TOKENIZERS = sorted({tokenizer for family in DRAWN for tokenizer in family.tokenizers})
PATTERNS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    *(f"{part}/config.json" for part in _WEIGHTED),
    *(
        f"{part}/{stem}{end}"
        for part in _WEIGHTED
        for stem in STEMS
        for end in (".safetensors", "-*-of-*.safetensors", ".safetensors.index.json")
    ),
    *(f"{tokenizer}/*.{end}" for tokenizer in _TOKENIZERS for end in ("json", "txt", "model")),
)
"""Files of a pipeline folder that the harness reads, as ``fnmatch`` patterns."""
TERMS = ("README.md", "LICENSE*", "NOTICE*")
"""Fetched beside them: the terms that a trained model is passed on under. They are no part of the fingerprint."""


def resolve(name: str, *, revision: str | None = None, offline: bool = False) -> Path:
    """The folder of a pipeline.

    Args:
        name: a local folder, or a hub id ``owner/name``.
        revision: branch, tag or commit of a hub id (None: ``main``).
        offline: use the hub's cache alone.

    Returns:
        The local folder itself, or the snapshot in the hub's cache (``HF_HOME``); what the cache lacks is downloaded.

    Raises:
        BenchError: one line that says what to do.
    """
    local = Path(name).expanduser()
    if local.is_dir():
        if revision is not None:
            raise BenchError(f"revision {revision!r} is for a hub id; {name} is a folder: leave the revision out")
        return local.resolve()
    if local.is_file():
        raise BenchError(f"{name} is a file; give a diffusers pipeline folder (model_index.json and its parts)")
    _check_id(name)
    return _snapshot(name, revision, offline)


def files(folder: Path) -> list[Path]:
    """The files of a pipeline folder that the harness reads, sorted by name."""
    paths = {path for path in folder.rglob("*") if path.is_file()}
    known = {p for p in paths if any(fnmatch(p.relative_to(folder).as_posix(), pattern) for pattern in PATTERNS)}
    for index in [path for path in known if path.name.endswith(".safetensors.index.json")]:
        known |= paths & _shards(index)
    return sorted(known)


def _shards(index: Path) -> set[Path]:
    """The files that an index of shards lists, whatever their names."""
    return {index.parent / str(name) for name in (read_json(index, "").get("weight_map") or {}).values()}


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of a pipeline's weights, tokenizers and configs.

    In the hub's cache a large file is a link to a blob that is named by the SHA-256 of its content; the name is taken
    as the content's hash, so that 30 GB are not read anew at each start. The result is the same as for a plain copy.
    """
    whole = hashlib.sha256()
    for path in files(folder):
        whole.update(f"{path.relative_to(folder).as_posix()}\0{_content_hash(path)}\n".encode())
    return whole.hexdigest()


def commit(folder: Path) -> str | None:
    """The hub commit that a folder is a snapshot of; None for any other folder."""
    known = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    return folder.name if known else None


def _content_hash(path: Path) -> str:
    if path.is_symlink():
        blob = path.resolve()
        cached = blob.parent.name == "blobs" and blob.parents[1].name.startswith("models--")
        if cached and re.fullmatch("[0-9a-f]{64}", blob.name):  # small files are named by git's 40 digits: hashed
            return blob.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_path(name: str) -> bool:
    """Whether a name is a path and no hub id, be it there or not.

    ``runs/sd3`` could be both. It is a path where ``runs`` is a folder here: a mistyped path must never bring a
    stranger's repository.
    """
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        return True
    owner, slash, _ = name.partition("/")
    return Path(name).exists() or bool(slash and Path(owner).is_dir())


def _check_id(name: str) -> None:
    from bench import registry

    if is_path(name):
        raise BenchError(f"there is no folder {name}")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise BenchError(f"{name!r} is neither a folder nor a hub id (owner/name)")
    if "/" not in name:
        raise unknown("backbone, folder or hub id", name, [*registry.table("backbones"), *KNOWN])


def _snapshot(name: str, revision: str | None, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted = [*PATTERNS, *TERMS]
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=offline, allow_patterns=wanted))
    except Exception as error:  # the transport's errors have no lasting class: requests, httpx and httpx2 in turn
        raise BenchError(_explain(error, name, revision, offline)) from error


def _explain(error: Exception, name: str, revision: str | None, offline: bool) -> str:
    """The line for a model that the hub's client did not bring."""
    from huggingface_hub import constants, errors, get_token

    hub, cache = constants.ENDPOINT, constants.HF_HUB_CACHE
    match error:
        case errors.HFValidationError():
            return f"{name!r} is neither a folder nor a hub id (owner/name)"
        case errors.GatedRepoError():
            return (
                f"{name} is gated: accept its licence at {hub}/{name}, "
                "then log in with `hf auth login` (or set HF_TOKEN)"
            )
        case errors.RepositoryNotFoundError():
            return _missing(name)
        case errors.RevisionNotFoundError():
            return f"{name} has no revision {revision!r}; {hub}/{name}/tree/main lists its branches and tags"
        case errors.IncompleteSnapshotError():
            return f"only a part of {name} is in the cache ({cache}); complete it: run once online, without --offline"
        case errors.LocalEntryNotFoundError():
            return _absent(name if revision is None else f"{name} at {revision!r}", offline, error.__cause__)
        case errors.HfHubHTTPError(response=response) if response.status_code == 401:
            # without a token, this is how the hub hides what is not public
            refused = "the hub refuses your token; log in again with `hf auth login` (or mend HF_TOKEN)"
            return refused if get_token() else _missing(name)
        case errors.HfHubHTTPError(response=response):
            return f"{hub} answers {response.status_code} for {name}; it cannot be fetched now"
        case OSError(errno=errno.ENOSPC):
            return f"no space left for {name} in {cache}; free some, or set HF_HOME to a larger disk"
        case OSError():
            return f"{name} cannot be fetched into {cache}: {_first_line(error)}"
    return f"the download of {name} broke off ({_first_line(error)}); run again, it goes on"


def _missing(name: str) -> str:
    """The line for an id that the hub does not know, or hides."""
    from huggingface_hub import constants

    near = [known for known in difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.8) if known != name]
    hint = f"did you mean {near[0]!r}?" if near else "check the name; if it is private or gated, `hf auth login`"
    return f"{name} is neither a folder here nor a model at {constants.ENDPOINT}; {hint}"


def _absent(what: str, offline: bool, cause: BaseException | None) -> str:
    """The line for a model that is not in the cache and that the hub does not give."""
    from huggingface_hub import constants, errors

    hub, cache = constants.ENDPOINT, constants.HF_HUB_CACHE
    if offline or constants.is_offline_mode():
        switch = "without --offline" if offline else "with HF_HUB_OFFLINE=0"
        return f"{what} is not in the cache ({cache}); run once {switch}, or give a local folder"
    if isinstance(cause, errors.HfHubHTTPError):
        return f"{hub} answers {cause.response.status_code} for {what}; it is not in the cache: try later"
    return (
        f"{hub} cannot be reached and {what} is not in the cache ({cache}); "
        "mend the network, or copy the folder here and give its path"
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
