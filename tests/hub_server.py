"""A hub of models on the loopback address: as much of its API as a real client needs to fetch a model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMITS = {"main": "1" * 40, "v2": "2" * 40}


@dataclass
class Hub:
    """Models by name and revision, each a folder; what was asked for, and which token a private one wants."""

    models: dict[tuple[str, str], Path]
    tokens: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, token: str | None) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body for a path."""
        path = path.partition("?")[0]
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name not in {known for known, _ in self.models} or self.tokens.get(name, token) != token:
            return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"{}"
        rest = parts[4:] if parts[0] == "api" else parts[2:]
        if rest and rest[0] in ("revision", "tree", "resolve"):
            revision = next((each for each in COMMITS if rest[1] in (each, COMMITS[each])), "")
        else:
            revision = "main"
        folder = self.models.get((name, revision))
        if folder is None:
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev"}, b"{}"
        if rest and rest[0] == "resolve":
            return self._file(folder / "/".join(rest[2:]), COMMITS[revision])
        files = sorted(each for each in folder.rglob("*") if each.is_file())
        names = [each.relative_to(folder).as_posix() for each in files]
        if rest and rest[0] == "tree":
            sizes = [each.stat().st_size for each in files]
            tree = [
                {"type": "file", "path": each, "size": size, "oid": _tag(folder / each)}
                for each, size in zip(names, sizes, strict=True)
            ]
            return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
        info = {"id": name, "sha": COMMITS[revision], "siblings": [{"rfilename": each} for each in names]}
        return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()

    def _file(self, file: Path, commit: str) -> tuple[int, dict[str, str], bytes]:
        if not file.is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        return 200, {"ETag": f'"{_tag(file)}"', "X-Repo-Commit": commit}, file.read_bytes()


def _tag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answer requests while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, body: bool) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            said = self.headers.get("Authorization")
            status, headers, content = hub.answer(self.path, said and said.removeprefix("Bearer "))
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
