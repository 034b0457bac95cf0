"""Where a checkpoint lies: a path on this machine, or a repository on the Hub.

A path that exists wins. What is fetched goes to the cache of `huggingface_hub`, and the
commit that a name stood for is recorded.
"""

import difflib
import os
import pathlib
import re
from typing import NamedTuple

from adarank_jax import errors


class Resolved(NamedTuple):
    """A source that is now on this machine.

    Attributes:
        path: file or folder.
        repo: ``org/name`` on the Hub; None for local paths.
        revision: commit that was fetched; None for local paths.
        subpath: inside the repository; None for the whole of it.
    """

    path: pathlib.Path
    repo: str | None = None
    revision: str | None = None
    subpath: str | None = None


def resolve(
    source: str | os.PathLike,
    offline: bool = False,
    cache_dir: str | os.PathLike | None = None,
) -> Resolved:
    """Finds a checkpoint, and fetches it if it is on the Hub.

    Args:
        source: a file, a folder or ``org/name[@revision][:path/in/repo]``.
        offline: take files of the Hub from its cache only; so does HF_HUB_OFFLINE.
        cache_dir: folder of that cache; None for the usual one.

    Returns:
        Where it lies now.

    Raises:
        MissingError: there is no such path, repository, revision or file, or it is not
            in the cache; the message has the nearest name if there is one.
        UnreachableError: the Hub cannot be reached.
        InputError: the source is empty, or neither a path nor a name on the Hub, or the
            repository is private or gated.

    Examples:
        >>> parse("openai/clip-vit-base-patch32@main")
        ('openai/clip-vit-base-patch32', 'main', None)
    """
    text = os.fspath(source)
    if not text.strip():
        raise errors.InputError(
            *("E132", "it must be a path or a name on the Hub, got none"),
            remedy="name a file, a folder or org/name",
        )
    path = pathlib.Path(text).expanduser()
    if path.exists():
        return Resolved(path)
    name = None if _is_path(text) else parse(text)
    if name is None:
        raise _missing(path, text)
    return _fetch(*name, offline, cache_dir, text)


def fetch_beside(resolved: Resolved, whole: bool = True, offline: bool = False) -> None:
    """Fetches what describes a single file of the Hub: what lies in its folder there.

    Files that are not there, or not in the cache without a network, are left out.

    Args:
        resolved: as `resolve` returns; local paths and folders have theirs already.
        whole: preprocessing, tokenizer and model card as well, not only the
            configuration.
        offline: take files of the Hub from its cache only.
    """
    if resolved.repo is None or resolved.path.is_dir():
        return
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub import errors as hub_errors

    subpath = resolved.subpath or ""
    start = subpath[: subpath.rfind("/") + 1]
    # <cache>/models--org--name/snapshots/<commit>/<subpath>
    cache = resolved.path.parents[subpath.count("/") + 3]
    try:
        huggingface_hub.snapshot_download(
            resolved.repo,
            revision=resolved.revision,
            cache_dir=cache,
            allow_patterns=[start + name for name in (_BESIDE if whole else _CONFIGS)],
            local_files_only=offline or constants.HF_HUB_OFFLINE,
        )
    except (
        hub_errors.HfHubHTTPError,
        hub_errors.LocalEntryNotFoundError,
        hub_errors.HTTPError,  # pyright: ignore[reportPrivateImportUsage]
    ):
        return


def pin(source: str, revision: str | None) -> str:
    """Names the commit that a source stood for.

    Args:
        source: as for `resolve`.
        revision: commit; None for a local path.

    Returns:
        ``org/name@commit[:path/in/repo]``, or a local path as it is.

    Examples:
        >>> pin("org/name@main:Cars/finetuned.pt", "3d74acf")
        'org/name@3d74acf:Cars/finetuned.pt'
        >>> pin("./experts/mnist.pt", None)
        './experts/mnist.pt'
    """
    name = parse(source) if revision else None
    if name is None:
        return source
    repo, _, subpath = name
    return f"{repo}@{revision}" + (f":{subpath}" if subpath else "")


def parse(source: str) -> tuple[str, str | None, str | None] | None:
    """Splits a name on the Hub into repository, revision and path.

    Args:
        source: ``org/name[@revision][:path/in/repo]``.

    Returns:
        The three parts; None if it is no such name.

    Raises:
        InputError: the path leaves the repository.

    Examples:
        >>> parse("org/name:Cars/finetuned.pt")
        ('org/name', None, 'Cars/finetuned.pt')
        >>> parse("a/b/c") is None
        True
    """
    found = _NAME.fullmatch(source)
    if not found or any(mark in found["repo"] for mark in ("--", "..")):
        return None
    subpath = found["subpath"]
    if subpath and ("\\" in subpath or {"", ".", ".."} & {*subpath.split("/")}):
        raise errors.InputError(
            "E132",
            f"{source!r} must name a path inside the repository, got {subpath!r}",
            remedy="write it as folder/file without '..'",
        )
    return found["repo"], found["revision"], subpath


def _is_path(text):
    """Tells what can only be meant as a path."""
    ends = text.endswith((*_ENDINGS, "/")) and ":" not in text
    return ends or text.startswith((".", "/", "~", "\\"))


def _missing(path, text):
    """Makes the error about a path, with what is there instead."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    names = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "") or "nothing"
    code, found = "E101", "there is no such file or folder"
    if not _is_path(text):
        code = "E132"
        found += (
            ", and it is no name on the Hub either: those are written "
            "org/name[@revision][:path/in/repo]"
        )
    remedy = (
        f"did you mean `{parent / near[0]}`?"
        if near
        else f"`{parent}` holds {shown}; check the path"
    )
    return errors.MissingError(code, found, f"`{text}`", remedy=remedy)


def _fetch(repo, revision, subpath, offline, cache_dir, source):
    """Downloads what is needed, and explains what went wrong."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub import errors as hub_errors

    where = f"`{source}`"
    offline = offline or constants.HF_HUB_OFFLINE
    options = {
        "revision": revision,
        "cache_dir": cache_dir,
        "local_files_only": offline,
    }
    try:
        if subpath and subpath.endswith(_ENDINGS):
            path = pathlib.Path(
                huggingface_hub.hf_hub_download(repo, subpath, **options)
            )
        else:
            path = _fetch_folder(repo, subpath, options)
    except hub_errors.GatedRepoError as error:
        raise errors.InputError(
            "E104",
            f"the repository {repo!r} is gated",
            where=where,
            remedy="accept its terms on its page, then log in with `hf auth login`, or "
            "pass a folder that holds its files",
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise errors.MissingError(
            "E103",
            "there is no such path on this machine, and the Hub has no public "
            f"repository {repo!r}",
            where=where,
            remedy="check the spelling, or log in with `hf auth login` if it is "
            "private",
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise errors.MissingError(
            *("E103", f"the repository {repo!r} has no revision {revision!r}", where),
            remedy="check the branch, tag or commit",
        ) from error
    except hub_errors.LocalEntryNotFoundError as error:
        raise _not_cached(repo, revision, subpath, offline, error, where) from error
    except hub_errors.EntryNotFoundError as error:
        raise errors.MissingError(
            "E103",
            f"the repository {repo!r} has no file {subpath!r} at revision "
            f"{revision or 'main'!r}",
            where=where,
            remedy="look the path up on its page",
        ) from error
    except hub_errors.HFValidationError as error:
        raise errors.InputError(
            "E132",
            f"it is neither a path nor a valid name on the Hub: {error}",
            where=where,
            remedy="name a file, a folder or org/name",
        ) from error
    except hub_errors.HfHubHTTPError as error:
        status = error.response.status_code
        found = f"the Hub answered {status} for {repo!r}"
        if status in (401, 403):
            raise errors.InputError(
                "E104", found, where, remedy=_ADVICE[status]
            ) from error
        remedy = _ADVICE.get(
            status, "try again later, or pass a folder that holds the files"
        )
        raise errors.UnreachableError("E105", found, where, remedy=remedy) from error
    except hub_errors.HTTPError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise errors.UnreachableError(
            "E105",
            f"the Hub cannot be reached ({type(error).__name__}: {error})",
            where=where,
            remedy="check the network and its proxy, or pass a folder that holds the "
            "files",
        ) from error
    commit = _commit(path)
    return Resolved(path, repo, commit, subpath)


def _fetch_folder(repo, subpath, options):
    """Fetches configuration and weights: of several containers, the best one only."""
    from huggingface_hub import snapshot_download

    start = f"{subpath}/" if subpath else ""
    for weights in _WEIGHTS:
        patterns = [start + name for name in (*_BESIDE, *weights)]
        folder = pathlib.Path(
            snapshot_download(repo, allow_patterns=patterns, **options)
        )
        path = folder / subpath if subpath else folder
        if any(next(path.glob(name), None) for name in weights):
            return path
        # The commit is known now; the next round asks for the same one.
        options = options | {"revision": _commit(folder) or options["revision"]}
    there = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    raise errors.MissingError(
        "E108",
        f"the repository has no weights{f' in {subpath!r}' if subpath else ''} under a "
        f"usual name ({_WEIGHTS[0][0]}, {_WEIGHTS[2][0]}, …); what was fetched is "
        f"{there}",
        where=f"`{repo}`",
        remedy=f"name the file: {repo}:path/of/file",
    )


def _not_cached(repo, revision, subpath, offline, error, where):
    """Tells apart a cache without the files and a Hub out of reach."""
    what = f"{repo!r}" + (f" at {revision!r}" if revision else "")
    what += f" ({subpath})" if subpath else ""
    what = f"there is no such path on this machine, and {what}"
    if offline:
        return errors.MissingError(
            "E106",
            f"{what} is not in the cache of the Hub, or not in whole, and the network "
            "is switched off or out of reach",
            where=where,
            remedy="run once with a network, or pass a folder that holds its files",
        )
    cause = error.__cause__
    reason = f" ({type(cause).__name__})" if cause else ""
    return errors.UnreachableError(
        "E105",
        f"{what} is not in the cache of the Hub, which cannot be reached{reason}",
        where=where,
        remedy="check path and network, or pass a folder that holds its files",
    )


def _commit(path):
    """Reads the commit off a path in the cache."""
    parts = path.parts
    for i, part in enumerate(parts[:-1]):
        if part == "snapshots":
            return parts[i + 1]
    return None


_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(@(?P<revision>[A-Za-z0-9._/-]+))?(:(?P<subpath>.+))?"
)
_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".json", ".ckpt")
_CONFIGS = ("config.json", "open_clip_config.json")
_BESIDE = (
    *_CONFIGS,
    "preprocessor_config.json",
    "processor_config.json",
    "README.md",
    "added_tokens.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
_WEIGHTS = (
    ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    ("open_clip_model.safetensors",),
    ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"),
    ("open_clip_pytorch_model.bin",),
)
_ADVICE = {
    401: "log in with `hf auth login`, or pass a folder that holds the files",
    403: "ask for access on the page of the repository: your account has none",
    404: "check the spelling",
}
