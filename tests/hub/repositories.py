"""Repositories of the loopback hub, in memory: commits, branches, and what the hub tells of files and cards."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

# As the hub's own .gitattributes has it.
LARGE = {".safetensors", ".bin", ".pt", ".pth", ".parquet", ".arrow", ".npy", ".zip", ".jpg", ".png", ".gguf"}


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: Mapping[str, bytes]
    parent: str | None


@dataclass
class Repository:
    """One repository with its branches. `gated`: granted to nobody."""

    kind: str
    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, title: str, files: Mapping[str, bytes], branch: str = "main") -> Commit:
        """A new commit with these files, whole."""
        parent = self.branches.get(branch)
        told = json.dumps([title, parent, sorted((path, sha256(content)) for path, content in files.items())])
        made = Commit(hashlib.sha1(told.encode()).hexdigest(), title, dict(files), parent)
        self.commits[made.oid] = made
        self.branches[branch] = made.oid
        return made

    def at(self, revision: str) -> Commit | None:
        return self.commits.get(self.branches.get(revision, revision))

    @property
    def files(self) -> Mapping[str, bytes]:
        """Of the main branch."""
        return self.commits[self.branches["main"]].files

    @property
    def titles(self) -> list[str]:
        """Of the main branch's commits, the first one first."""
        titles, at = list[str](), self.commits.get(self.branches["main"])
        while at is not None:
            titles.append(at.title)
            at = self.commits.get(at.parent) if at.parent else None
        return titles[::-1]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_large(path: str) -> bool:
    return PurePosixPath(path).suffix in LARGE


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def told_file(path: str, content: bytes) -> dict[str, Any]:
    """A file in a tree."""
    entry: dict[str, Any] = {"type": "file", "path": path, "oid": git_oid(content), "size": len(content)}
    if is_large(path):
        entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
    return entry


def card_metadata(content: bytes, strict: bool = False) -> dict[str, Any]:
    found = re.match(r"---\r?\n(.*?)\r?\n---", content.decode("utf-8", "replace"), re.DOTALL)
    try:
        read = yaml.safe_load(found.group(1)) if found else {}
    except yaml.YAMLError as error:
        if strict:
            raise ValueError(str(error)) from error
        return {}
    if strict and not isinstance(read, dict | None):
        raise ValueError("the metadata is no mapping")
    return read or {}
