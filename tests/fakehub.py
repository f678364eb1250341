"""A Hugging Face hub of our own on this machine: the endpoints that its client and `datasets` speak.

    with FakeHub() as hub:
        commit = hub.add("org/model", {"config.json": b"{}"}, gated=True)
        environment = hub.environment()     # HF_ENDPOINT, and no proxy before it

Repositories are dictionaries of bytes; adding one again moves its `main`. `seen` are the requests so far.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    token: str
    first: int  # byte that was asked for


class FakeHub:
    """Serves until the `with` ends. `allowed` are the tokens that may read what is gated or private.

    `cut_after` breaks off the next download after so many bytes, once, as a network does; `trouble` is a
    status that everything is answered with. `pages` are others than a hub has.
    """

    def __init__(self, allowed: tuple[str, ...] = ()) -> None:
        self.allowed = allowed
        self.seen: list[Seen] = []
        self.cut_after: int | None = None
        self.trouble: int | None = None
        self.pages: dict[str, bytes] = {}
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def add(
        self,
        name: str,
        files: Files,
        kind: str = "model",
        tag: str | None = None,
        gated: bool = False,
        private: bool = False,
    ) -> str:
        """Put `files` up as the new head of `name`; returns the commit."""
        repository = self._repositories.setdefault((f"{kind}s", name), Repository())
        repository.gated, repository.private = gated, private
        commit = hashlib.sha1(repr([name, sorted(files.items())]).encode()).hexdigest()
        repository.commits[commit] = files
        repository.refs["main"] = commit
        if tag is not None:
            repository.refs[tag] = commit
        return commit

    def downloads(self) -> list[str]:
        """The files that were asked for, in order."""
        return [seen.path for seen in self.seen if seen.method == "GET" and "/resolve/" in seen.path]

    def find(self, kind: str, name: str) -> Repository | None:
        return self._repositories.get((kind, name))


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _answer(self, body: bytes) -> None:
            url = urlsplit(self.path)
            path = unquote(url.path)
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            self.first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            hub.seen.append(Seen(self.command, path, token, self.first))
            if hub.trouble is not None:
                self._error(hub.trouble, "", "out of order")
            elif path in hub.pages:
                self._send(200, hub.pages[path], {})
            elif match := _API.fullmatch(path):
                kind, name, what, revision, rest = match.groups()
                deep = parse_qs(url.query).get("recursive", [""])[0].lower() in ("1", "true")
                self._api(kind, name, what or "revision", revision or "main", rest or "", body, deep, token)
            elif match := _FILE.fullmatch(path):
                data, name, revision, file = match.groups()
                self._file("datasets" if data else "models", name, revision, file, token)
            else:
                self._error(404, "EntryNotFound", f"no such page: {path}")

        def _repository(self, kind: str, name: str, token: str) -> Repository | None:
            found = hub.find(kind, name)
            if token.startswith("hf_expired"):
                self._error(401, "", "Invalid credentials in Authorization header")
            elif found is None or (found.private and token not in hub.allowed):
                # The real one does not tell strangers what there is.
                self._error(404 if token else 401, "RepoNotFound", "Repository not found")
            else:
                return found
            return None

        def _api(
            self,
            kind: str,
            name: str,
            what: str,
            revision: str,
            rest: str,
            body: bytes,
            deep: bool,
            token: str,
        ) -> None:
            repository = self._repository(kind, name, token)
            if repository is None:
                return
            commit = repository.commit(revision)
            if commit is None:
                self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                return
            files = repository.commits[commit]
            entries = [_file(path, data) for path, data in sorted(files.items())]
            if what == "revision":
                siblings = [{"rfilename": e["path"], **e} for e in entries]
                facts = {"id": name, "sha": commit, "siblings": siblings, "tags": [], "private": False}
                facts |= {"gated": "manual" if repository.gated else False, "downloads": 0, "likes": 0}
                self._json({**facts, "author": name.partition("/")[0], "disabled": False})
            elif what == "tree":
                below = _below(entries, f"{rest}/" if rest else "", deep)
                if below:
                    self._json(below)
                else:
                    self._error(404, "EntryNotFound", f"{rest} does not exist on {revision}", commit)
            else:
                asked = (
                    json.loads(body).get("paths", [])
                    if body.startswith(b"{")
                    else re.findall(r"paths=([^&]+)", unquote(body.decode()))
                )
                self._json([e for e in entries if e["path"] in asked])

        def _file(self, kind: str, name: str, revision: str, file: str, token: str) -> None:
            repository = self._repository(kind, name, token)
            if repository is None:
                return
            commit = repository.commit(revision)
            if commit is None:
                self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                return
            if repository.gated and token not in hub.allowed:
                said = f"Access to model {name} is restricted."
                self._error(403 if token else 401, "GatedRepo", said, commit)
                return
            data = repository.commits[commit].get(file)
            if data is None:
                self._error(404, "EntryNotFound", "Entry not found", commit)
                return
            part = data[self.first :]
            self.send_response(206 if self.first else 200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(part)))
            if self.first:
                self.send_header("Content-Range", f"bytes {self.first}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if self.command == "HEAD":
                return
            if hub.cut_after is not None and len(part) > hub.cut_after:
                self.wfile.write(part[: hub.cut_after])
                hub.cut_after = None
                self.close_connection = True
                return
            self.wfile.write(part)

        def _json(self, answer: Any) -> None:
            self._send(200, json.dumps(answer).encode(), {})

        def _error(self, status: int, code: str, message: str, commit: str = "") -> None:
            headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
            text = json.dumps({"error": message}).encode()
            self._send(status, text, {name: value for name, value in headers.items() if value})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler


def _file(path: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if path.endswith((".safetensors", ".bin", ".parquet")):
        entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 99}
    return entry


def _below(entries: list[dict[str, Any]], folder: str, deep: bool) -> list[dict[str, Any]]:
    """What is in `folder`, as the hub lists it: files and folders of it, or of all below it too."""
    found = {}
    for entry in entries:
        if not entry["path"].startswith(folder):
            continue
        parts = entry["path"].removeprefix(folder).split("/")
        for depth in range(1, len(parts) if deep else min(len(parts), 2)):
            path = folder + "/".join(parts[:depth])
            found[path] = {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}
        if deep or len(parts) == 1:
            found[entry["path"]] = entry
    return list(found.values())
