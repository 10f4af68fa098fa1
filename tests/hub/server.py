"""A small hub on the loopback: what huggingface_hub, transformers and datasets ask of the Hugging Face Hub, over HTTP.

Repositories live in memory, with branches, commits and large files. Every request is kept in `requests`, so that a
test sees what really went over the wire. What is not served answers 404 and stands in `unserved`.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.hub.repositories import Commit, Repository, card_metadata, git_oid, is_large, sha256, told_file

TOKEN = "hf_loopback"  # of the only person
USER = "someone"
DATE = "2026-01-01T00:00:00.000Z"
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
_NAMED = r"(?P<kind>models|datasets|spaces)/(?P<repo>[\w.-]+(?:/[\w.-]+)?)"


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    range: str | None
    token: str | None


class LoopbackHub:
    """The hub; serves from `start` to `stop`, at `endpoint`."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}  # large files by their SHA-256
        self.requests: list[Asked] = []
        self.unserved: list[str] = []
        self.breaks: dict[str, int] = {}  # path -> bytes after which its next transfer breaks off
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        self.storage = f"http://localhost:{port}/storage"  # on another host, as the hub's large files are

    def start(self) -> LoopbackHub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(
        self, name: str, files: Mapping[str, bytes] | Path | None = None, kind: str = "model", **properties: Any
    ) -> Repository:
        """A repository with these files, or those of a folder, as its first commit."""
        repository = Repository(kind, name, **properties)
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in files.rglob("*") if p.is_file()}
        repository.commit("initial commit", {".gitattributes": b"", **(files or {})})
        self.repositories[kind, name] = repository
        return repository

    def __getitem__(self, name: str) -> Repository:
        """A repository of any kind."""
        return next(repository for (_, known), repository in self.repositories.items() if known == name)

    def asked(self, method: str, pattern: str) -> list[Asked]:
        return [asked for asked in self.requests if asked.method == method and re.search(pattern, asked.path)]


class _RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    # --- answers -----------------------------------------------------------------------------------------------------

    def _answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._answer(
            status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        )

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(iter(self._chunk, b""))
        else:
            self.body = self.rfile.read(length)
        authorization = self.headers.get("Authorization") or ""
        self.token = authorization.removeprefix("Bearer ") or None
        self.url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(self.url.query).items()}
        path = self.url.path
        with self.hub.lock:
            self.hub.requests.append(Asked(self.command, unquote(path), self.headers.get("Range"), self.token))
            try:
                for methods, pattern, answer in _ROUTES:
                    found = re.fullmatch(pattern, path)
                    if self.command in methods and found:
                        answer(self, **{name: unquote(value) for name, value in found.groupdict("").items()})
                        return
                self.hub.unserved.append(f"{self.command} {path}")
                raise _RefusedError(404, "NotFound", "Sorry, we can't find what you are looking for.")
            except _RefusedError as refused:
                headers = {"X-Error-Code": refused.code, "X-Error-Message": str(refused)}
                self._json({"error": str(refused)}, refused.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().strip() or b"0", 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _repository(self, kind: str, repo: str, write: bool = False) -> Repository:
        repository = self.hub.repositories.get((KINDS[kind], repo))
        known = self.token == TOKEN
        if self.token is not None and not known:
            raise _RefusedError(401, "", "Invalid credentials in Authorization header")
        if repository is None or (repository.private and not known):
            raise _RefusedError(404 if known else 401, "RepoNotFound", "Repository not found")
        if write and not known:
            raise _RefusedError(401, "", "Invalid username or password.")
        return repository

    def _commit(self, repository: Repository, revision: str) -> Commit:
        commit = repository.at(revision)
        if commit is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # --- asking ------------------------------------------------------------------------------------------------------

    def who(self) -> None:
        if self.token != TOKEN:
            raise _RefusedError(401, "", "Invalid username or password.")
        self._json({"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def nothing(self) -> None:
        self._json({})

    def info(self, kind: str, repo: str, revision: str) -> None:
        repository = self._repository(kind, repo)
        commit = self._commit(repository, revision or "main")
        card = card_metadata(commit.files.get("README.md", b""))
        self._json(
            {
                "_id": "0",
                "id": repo,
                "modelId": repo,
                "author": repo.split("/")[0],
                "sha": commit.oid,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "disabled": False,
                "lastModified": DATE,
                "createdAt": DATE,
                "downloads": 0,
                "likes": 0,
                "tags": card.get("tags") or [],
                "cardData": card,
                "siblings": [
                    {"rfilename": path, "size": len(content), "blobId": git_oid(content)}
                    for path, content in sorted(commit.files.items())
                ],
            }
        )

    def tree(self, kind: str, repo: str, revision: str, path: str) -> None:
        commit = self._commit(self._repository(kind, repo), revision)
        inside = f"{path}/" if path else ""
        entries: dict[str, dict[str, Any]] = {}
        for name, content in sorted(commit.files.items()):
            if not name.startswith(inside):
                continue
            parents = [p.as_posix() for p in PurePosixPath(name).parents if p.as_posix() != "."]
            for folder in parents:
                if folder.startswith(inside):
                    entries[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
            entries[name] = told_file(name, content)
        if path and not entries:
            raise _RefusedError(404, "EntryNotFound", f"{path} does not exist")
        if self.query.get("recursive", "false").lower() not in ("true", "1"):
            entries = {name: entry for name, entry in entries.items() if "/" not in name[len(inside) :]}
        self._json(list(entries.values()))

    def paths_info(self, kind: str, repo: str, revision: str) -> None:
        commit = self._commit(self._repository(kind, repo), revision)
        if "json" in (self.headers.get("Content-Type") or ""):
            paths = json.loads(self.body)["paths"]
        else:
            paths = parse_qs(self.body.decode())["paths"]
        found: list[dict[str, Any]] = []
        for path in paths:
            if path in commit.files:
                found.append(told_file(path, commit.files[path]))
            elif any(name.startswith(f"{path}/") for name in commit.files):
                found.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
        self._json(found)

    def refs(self, kind: str, repo: str) -> None:
        repository = self._repository(kind, repo)
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid}
            for name, oid in repository.branches.items()
        ]
        self._json({"branches": branches, "tags": [], "converts": []})

    def commits(self, kind: str, repo: str, revision: str) -> None:
        repository = self._repository(kind, repo)
        commit: Commit | None = self._commit(repository, revision)
        told = []
        while commit is not None:
            told.append({"id": commit.oid, "title": commit.title, "message": "", "date": DATE, "authors": []})
            commit = repository.at(commit.parent) if commit.parent else None
        self._json(told)

    def resolve(self, kind: str, repo: str, revision: str, path: str) -> None:
        repository = self._repository(kind or "models", repo)
        commit = self._commit(repository, revision)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if repository.gated:
            raise _RefusedError(
                403 if self.token == TOKEN else 401, "GatedRepo", f"Access to {repo} is restricted: ask for it there."
            )
        content = commit.files.get(path)
        if content is None:
            self._json(
                {"error": "Entry not found"},
                404,
                {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"},
            )
        elif is_large(path):
            oid = sha256(content)
            self.hub.objects[oid] = content
            place = f"{self.hub.storage}/{oid}?path={quote(path)}"
            headers |= {"Location": place, "X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            self._answer(302, b"", headers)
        else:
            self._send(content, path, {**headers, "ETag": f'"{git_oid(content)}"'})

    def stored(self, oid: str) -> None:
        content = self.hub.objects.get(oid)
        if content is None:
            raise _RefusedError(404, "EntryNotFound", "no such object")
        self._send(content, self.query.get("path", oid), {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _send(self, content: bytes, path: str, headers: dict[str, str]) -> None:
        """A file, or the range of it that is asked for; it may be that the transfer breaks off."""
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        status, total = 200, len(content)
        if wanted and wanted.group(1):
            first, last = int(wanted.group(1)), min(int(wanted.group(2) or total - 1), total - 1)
            if first >= total:
                raise _RefusedError(416, "", "Requested Range Not Satisfiable")
            status, content = 206, content[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{last}/{total}"
        elif wanted:
            first = total - int(wanted.group(2))
            status, content = 206, content[first:]
            headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
        after = self.hub.breaks.pop(path, None) if self.command == "GET" else None
        if after is None:
            self._answer(status, content, headers)
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[:after])
        self.wfile.flush()
        self.close_connection = True

    # --- writing -----------------------------------------------------------------------------------------------------

    def create(self) -> None:
        if self.token != TOKEN:
            raise _RefusedError(401, "", "Invalid username or password.")
        wanted = json.loads(self.body)
        kind, name = wanted.get("type") or "model", f"{wanted.get('organization') or USER}/{wanted['name']}"
        prefix = "" if kind == "model" else f"{kind}s/"
        told = {"url": f"{self.hub.endpoint}/{prefix}{name}", "name": name, "id": name}
        if (kind, name) in self.hub.repositories:
            self._json({**told, "error": "You already created this repo"}, 409)
            return
        self.hub.add(name, kind=kind, private=wanted.get("visibility") == "private")
        self._json(told)

    def branch(self, kind: str, repo: str, name: str) -> None:
        repository = self._repository(kind, repo, write=True)
        if name in repository.branches:
            raise _RefusedError(409, "", "Reference already exists")
        start = (json.loads(self.body) if self.body else {}).get("startingPoint") or "main"
        repository.branches[name] = self._commit(repository, start).oid
        self._json({})

    def validate(self) -> None:
        """As the hub does: the metadata must be YAML, and a mapping."""
        content = json.loads(self.body)["content"]
        try:
            found = card_metadata(content.encode(), strict=True)
        except ValueError as error:
            self._json({"errors": [{"message": str(error)}], "warnings": []}, 400)
            return
        warnings = [] if found else [{"message": "empty or missing yaml metadata in repo card"}]
        self._json({"errors": [], "warnings": warnings})

    def preupload(self, kind: str, repo: str, revision: str) -> None:
        repository = self._repository(kind, repo, write=True)
        commit = self._commit(repository, revision)
        told = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            before = commit.files.get(path)
            oid = None if before is None else sha256(before) if is_large(path) else git_oid(before)
            mode = "lfs" if is_large(path) else "regular"
            told.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": told})

    def batch(self, kind: str, repo: str) -> None:
        self._repository(kind or "models", repo, write=True)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            told = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                told["actions"] = {"upload": {"href": f"{self.hub.storage}/{wanted['oid']}", "header": {}}}
            objects.append(told)
        self._json({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        if sha256(self.body) != oid:
            raise _RefusedError(400, "", "the content is another than announced")
        self.hub.objects[oid] = self.body
        self._answer(200)

    def write(self, kind: str, repo: str, revision: str) -> None:
        repository = self._repository(kind, repo, write=True)
        files, title = dict(self._commit(repository, revision).files), ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                title = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"])
            elif entry["key"] == "deletedFolder":
                files = {path: content for path, content in files.items() if not path.startswith(value["path"])}
        made = repository.commit(title, files, revision)
        prefix = "" if kind == "models" else f"{kind}/"
        self._json({"commitUrl": f"{self.hub.endpoint}/{prefix}{repo}/commit/{made.oid}", "commitOid": made.oid})


_PREFIX = r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo>[\w.-]+(?:/[\w.-]+)?)"
_ROUTES: list[tuple[tuple[str, ...], str, Any]] = [
    (("GET",), r"/api/whoami-v2", _Handler.who),
    (("GET",), r"/api/agent-harnesses", _Handler.nothing),  # for the client's User-Agent
    (("POST",), r"/api/repos/create", _Handler.create),
    (("POST",), r"/api/validate-yaml", _Handler.validate),
    (("GET",), rf"/api/{_NAMED}(?:/revision/(?P<revision>[^/]+))?", _Handler.info),
    (("GET",), rf"/api/{_NAMED}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", _Handler.tree),
    (("POST",), rf"/api/{_NAMED}/paths-info/(?P<revision>[^/]+)", _Handler.paths_info),
    (("GET",), rf"/api/{_NAMED}/refs", _Handler.refs),
    (("GET",), rf"/api/{_NAMED}/commits/(?P<revision>[^/]+)", _Handler.commits),
    (("POST",), rf"/api/{_NAMED}/branch/(?P<name>.+)", _Handler.branch),
    (("POST",), rf"/api/{_NAMED}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (("POST",), rf"/api/{_NAMED}/commit/(?P<revision>[^/]+)", _Handler.write),
    (("POST",), rf"{_PREFIX}\.git/info/lfs/objects/batch", _Handler.batch),
    (("GET", "HEAD"), r"/storage/(?P<oid>[0-9a-f]{64})", _Handler.stored),
    (("PUT",), r"/storage/(?P<oid>[0-9a-f]{64})", _Handler.store),
    (("GET", "HEAD"), rf"{_PREFIX}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]
