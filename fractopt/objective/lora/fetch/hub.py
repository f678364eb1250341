"""The Hugging Face hub through its own client: what a name stands for, and its files, with errors in words.

Tokens come from the environment (HF_TOKEN) and go to the hub alone. Imports no torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fractopt.objective.base import UnusableError
from fractopt.objective.lora import architecture
from fractopt.objective.lora.files import hub_home, read_json

Kind = Literal["model", "dataset"]
PUBLIC = "https://huggingface.co"
_TIMEOUT_S = 20.0
TRIES = 5  # of a download that breaks off
AGAIN = "the same command goes on where it did"
_NETWORK = ("httpx", "httpcore", "requests", "urllib3")  # packages whose exceptions tell of the network
# Of their exceptions, those of a connection that there was.
_BROKEN_OFF = ("RemoteProtocolError", "ReadError", "ReadTimeout", "ChunkedEncodingError")


class BrokenOffError(UnusableError):
    """The network broke off in the middle: another try goes on from there."""


@dataclass(frozen=True)
class File:
    """A file of a repository: its `size` in bytes, and the checksum that the hub keeps of large ones."""

    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Repository:
    """What a name and a revision stood for when the hub was asked; `files` by their paths in it."""

    kind: Kind
    name: str
    commit: str
    files: Mapping[str, File]


class Hub:
    """The hub that HF_ENDPOINT names; the cache of its client is where HF_HUB_CACHE and HF_HOME say."""

    def __init__(self) -> None:
        self.endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or PUBLIC
        cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
        self.cache = Path(os.path.expandvars(os.path.expanduser(cache))) if cache else hub_home() / "hub"
        # False: no other token either, such as one that the client once saved to a file.
        self._token: str | bool = os.environ.get("HF_TOKEN") or False

    def find(self, kind: Kind, name: str, revision: str) -> Repository:
        """Ask the hub what `name` is at `revision`. Raises UnusableError in words."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=self._token)
        with self._in_words(kind, name, revision):
            info: Any = api.repo_info(
                name, repo_type=kind, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
            )
        files = {
            entry.rfilename: File(entry.size or 0, None if entry.lfs is None else entry.lfs.sha256)
            for entry in info.siblings or ()
        }
        return Repository(kind, name, str(info.sha), files)

    def missing_bytes(self, repository: Repository, paths: list[str]) -> int:
        """What has still to be downloaded of `paths`."""
        place = self.snapshot(repository)
        return sum(repository.files[path].size for path in paths if not (place / path).exists())

    def download(self, repository: Repository, path: str) -> Path:
        """One file, from the cache where it is there; a download that broke off goes on where it did.

        Raises UnusableError in words, also for a file that came out damaged.
        """
        from huggingface_hub import hf_hub_download

        expected = repository.files[path]
        fresh = not (self.snapshot(repository) / path).exists()
        for tries_left in reversed(range(TRIES)):
            try:
                with self._in_words(repository.kind, repository.name, repository.commit):
                    file = Path(
                        hf_hub_download(
                            repository.name,
                            path,
                            repo_type=repository.kind,
                            revision=repository.commit,
                            cache_dir=self.cache,
                            endpoint=self.endpoint,
                            token=self._token,
                        )
                    )
                break
            except BrokenOffError:
                if not tries_left:
                    raise
        damaged = file.stat().st_size != expected.size
        if fresh and not damaged and expected.sha256 is not None:
            with file.open("rb") as stream:
                damaged = hashlib.file_digest(stream, "sha256").hexdigest() != expected.sha256
        if damaged:
            file.resolve().unlink()
            file.unlink(missing_ok=True)
            raise UnusableError(f"{path} of {repository.name} was damaged and is removed: fetch it again")
        return file

    def read_json(self, repository: Repository, path: str) -> dict[str, Any]:
        return read_json(self.download(repository, path))

    def snapshot(self, repository: Repository) -> Path:
        """The directory of the client's cache that the repository's files are in."""
        owner_and_name = repository.name.replace("/", "--")
        return self.cache / f"{repository.kind}s--{owner_and_name}" / "snapshots" / repository.commit

    @contextmanager
    def _in_words(self, kind: Kind, name: str, revision: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            said = in_words(error, kind, name, revision)
            if said is None:
                raise
            # Without the cause, which quotes addresses that nobody needs.
            raise (BrokenOffError(said) if said.endswith(AGAIN) else UnusableError(said)) from None


def in_words(error: BaseException, kind: Kind, name: str, revision: str = "") -> str | None:
    """What a user can do about an exception of the hub's client; None where it is another one."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 20:
        chain.append(cause)
    words = [_answer_in_words(link, kind, name, revision) for link in chain]
    words += [_network_in_words(link) for link in chain]
    return next((said for said in words if said), None)


def _answer_in_words(error: BaseException, kind: Kind, name: str, revision: str) -> str | None:
    from huggingface_hub import errors

    what = "model" if kind == "model" else "data set"
    page = f"{PUBLIC}/{'' if kind == 'model' else 'datasets/'}{name}"
    has_token = bool(os.environ.get("HF_TOKEN"))
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        token = "" if has_token else f", make a token at {PUBLIC}/settings/tokens and set HF_TOKEN to it"
        owner = ", with the account that HF_TOKEN belongs to" if has_token else ""
        return f"the {what} {name} is for those who accepted its licence: accept it at {page}{owner}{token}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the {what} {name} has no branch, tag or commit {revision!r}: {page}/tree/main lists them"
    if status == 401 and "Invalid credentials" in str(error):
        return f"the hub does not know the token in HF_TOKEN: make a new one at {PUBLIC}/settings/tokens"
    if isinstance(error, errors.RepositoryNotFoundError):
        close = [near for near in architecture.nearest(name) if near != name] if kind == "model" else []
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        access = "the account of HF_TOKEN has no access" if has_token else "HF_TOKEN is not set"
        return f"the hub shows no {what} {name!r}{hint} It may also be a private one: {access}"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"the {what} {name} has lost a file while it was fetched: fetch it again"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, which forbids the network: unset it to fetch"
    if isinstance(status, int):
        return f"the hub answered {status} when it was asked for the {what} {name}: try again later"
    return None


def _network_in_words(error: BaseException) -> str | None:
    name = type(error).__name__
    if type(error).__module__.partition(".")[0] not in _NETWORK and not isinstance(error, ConnectionError):
        return None
    host = os.environ.get("HF_ENDPOINT") or PUBLIC
    if name in _BROKEN_OFF:
        return f"the connection to {host} broke off ({name}): {AGAIN}"
    return (
        f"there is no network to {host} from here ({name}): fetch on a login node, into an HF_HOME that the "
        "compute nodes see; behind a proxy set HTTPS_PROXY"
    )
