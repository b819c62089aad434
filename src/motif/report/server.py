"""The live page: a small server that reads run folders as they grow."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qs, urlsplit

from motif.hosts import is_host, names_this_machine
from motif.report import saved_page
from motif.report.data import RunView, page_data
from motif.report.page import Page, render, to_json
from motif.run_files import REPORT, WRITER_LOCK
from motif.runs.disk import is_locked
from motif.runs.read import file_states

SMALL = 1_000  # bytes up to which compression does not pay off
LARGEST_BODY = 1 << 16  # bytes of a body that are read before the answer; with more the client may not see it
HTML, JSON = "text/html; charset=utf-8", "application/json; charset=utf-8"


class NotFound(Exception):
    """The requested thing does not exist, or no longer."""


class Pages(Protocol):
    """What a server shows: the page of some runs, or of a folder of them."""

    def route(self, path: str) -> tuple[Pages, str]:
        """Whom an address is for, and what is asked of it."""

    def page(self) -> Page:
        """The page."""


class Viewer:
    """The runs that are shown, and the responses to the page's requests about them; for one thread at a time."""

    def __init__(self, runs: Sequence[Path]):
        self.runs = [RunView(run) for run in runs]
        self._states: Any = None
        self._data = b""

    def route(self, path: str) -> tuple[Pages, str]:
        """All addresses are for these runs."""
        return self, path

    def refresh(self) -> None:
        """Read what has been appended to the runs' files."""
        states = [(file_states(run.path), is_locked(run.path / WRITER_LOCK)) for run in self.runs]
        if states == self._states:
            return
        for run in self.runs:
            run.refresh()
        self._states, self._data = states, b""

    def page(self) -> Page:
        """The page, without the trees: they take longer to read, and the page requests them."""
        for run in self.runs:
            run.refresh(trees=False)
        return render(page_data(self.runs), live=True)

    def data(self) -> bytes:
        """The page's data as JSON."""
        self._data = self._data or _json(page_data(self.runs))
        return self._data

    def saved(self) -> bytes:
        """The page as one offline file."""
        return saved_page(self.runs)

    def heads(self, run: int, epoch: str, first: int) -> bytes:
        """The index of a run's trees from place `first` on, or all of it if its epoch is not `epoch`."""
        forest = self._run(run).forest
        start = max(0, first) if epoch == forest.epoch else 0
        return _json({"epoch": forest.epoch, "first": start, "heads": forest.heads[start:]})

    def tree(self, run: int, epoch: str, place: int) -> bytes:
        """One tree with its full texts.

        Raises:
            NotFound: no such run or tree, or the index has another epoch.
        """
        forest = self._run(run).forest
        tree = forest.tree(place) if epoch == forest.epoch else None
        if tree is None:
            raise NotFound("this tree is no longer there")
        return _json(tree)

    def containing(self, run: int, text: str) -> bytes:
        """The places of a run's trees with a text."""
        forest = self._run(run).forest
        return _json({"epoch": forest.epoch, "places": forest.containing(text)})

    def _run(self, place: int) -> RunView:
        if not 0 <= place < len(self.runs):
            raise NotFound("no such run")
        return self.runs[place]


class ViewServer(ThreadingHTTPServer):
    """Serves the pages of runs and nothing else: paths are compared, never looked up on the disk."""

    daemon_threads = True

    def __init__(self, viewer: Pages, host: str, listener: socket.socket):
        """`listener` is bound to the host, but does not listen yet."""
        self.viewer, self.host = viewer, host
        self.lock = threading.Lock()
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_activate()

    @property
    def url(self) -> str:
        """The address of the page for a browser on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: ViewServer
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds until a silent connection is closed

    def do_GET(self) -> None:
        """Answer with the page, its data, or an error."""
        self._drop_body()
        try:
            hosts = self.headers.get_all("Host", [""])
            try:
                address = urlsplit(self.path)
            except ValueError:  # http://[ and the like
                address = None
            if address is None or len(hosts) > 1 or not is_host(hosts[0]):
                self._answer(b"not an address\n", "text/plain", HTTPStatus.BAD_REQUEST)
                return
            if not names_this_machine(hosts[0], self.server.host):
                self._answer(b"unknown host\n", "text/plain", HTTPStatus.MISDIRECTED_REQUEST)
                return
            with self.server.lock:
                body, kind, more = self._find(address)
            self._answer(body, kind, more=more)
        except NotFound as error:
            self._answer(f"{error}\n".encode(), "text/plain", HTTPStatus.NOT_FOUND)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_GET

    def _drop_body(self) -> None:
        """Read the body of a request that needs none, and end the connection, so that it is not the next request."""
        length = self.headers.get("Content-Length", "0").strip()
        if length == "0" and "Transfer-Encoding" not in self.headers:
            return
        self.close_connection = True
        if _whole(length) > 0:
            self.rfile.read(min(_whole(length), LARGEST_BODY))

    def _find(self, address: SplitResult) -> tuple[bytes, str, dict[str, str]]:
        query = {key: values[-1] for key, values in parse_qs(address.query).items()}
        run, epoch = _whole(query.get("run")), query.get("epoch", "")
        viewer, path = self.server.viewer.route(address.path)
        if path == "/":
            page = viewer.page()
            policy = f"{page.policy}; frame-ancestors 'none'"
            return page.text.encode("utf-8", "replace"), HTML, {"Content-Security-Policy": policy}
        if not isinstance(viewer, Viewer):
            raise NotFound("nothing at this address")
        viewer.refresh()
        if path == f"/{REPORT}":
            return viewer.saved(), HTML, {"Content-Disposition": f'attachment; filename="{REPORT}"'}
        if path == "/data.json":
            return viewer.data(), JSON, {}
        if path == "/heads.json":
            return viewer.heads(run, epoch, _whole(query.get("first"))), JSON, {}
        if path == "/tree.json":
            return viewer.tree(run, epoch, _whole(query.get("place"))), JSON, {}
        if path == "/containing.json":
            return viewer.containing(run, query.get("text", "")), JSON, {}
        raise NotFound("nothing at this address")

    def _answer(
        self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, more: dict[str, str] | None = None
    ) -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if status == HTTPStatus.OK and self.headers.get("If-None-Match") == tag:
            status, body = HTTPStatus.NOT_MODIFIED, b""
        headers = {"Content-Type": kind, "ETag": tag, "Cache-Control": "no-cache"} | (more or {})
        if len(body) > SMALL and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 3)
            headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        if self.close_connection:
            headers["Connection"] = "close"
        # No other page may embed or read the texts of the run.
        headers |= {
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
        }
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """The Server header, without versions."""
        return "motif"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a page that sends a request every other second would fill the terminal."""


def _json(value: Any) -> bytes:
    return to_json(value).encode("utf-8", "replace")


def _whole(text: str | None) -> int:
    """A number in an address; -1, which is not a place, for anything else."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 12 else -1
