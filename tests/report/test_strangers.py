"""A run folder that somebody else made: it is read as plain files, within bounds, and nothing else is."""

from __future__ import annotations

import json
import os
import resource
import socket
import time
from pathlib import Path

import pytest

from motif.report import save_page, write_report
from motif.report.data import RunView
from motif.report.server import Viewer, ViewServer
from motif.run_files import METRICS, PROBE, RECIPE, REPORT, SUMMARY, TREES
from motif.runs.disk import open_plain, write_atomically
from motif.runs.read import last_step, read_json, read_recipe, records
from report.test_view import Serve, ask, serve  # noqa: F401 (a fixture)
from support.runs import fake_run

FILES = (METRICS, TREES, SUMMARY, RECIPE, PROBE)
SECRET = "root-password"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fake_run(tmp_path / "run", steps=2)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket", "link", "link to a device", "circle", "hole"])
def test_only_plain_files_of_the_folder_are_read(run: Path, tmp_path: Path, name: str, kind: str) -> None:
    file = run / name
    file.unlink(missing_ok=True)
    (tmp_path / "secret").write_text(f'about = "{SECRET}"\n')
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "device" | "link to a device":
            file.symlink_to("/dev/zero")
        case "folder":
            file.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                os.chdir(run)
                bound.bind(name)
        case "link":
            file.symlink_to(tmp_path / "secret")
        case "circle":
            file.symlink_to(file)
        case "hole":
            with file.open("wb") as opened:
                opened.truncate(10 << 30)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    page = save_page([run], tmp_path / "page.html").read_text()
    assert SECRET not in page
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kilobytes
    viewer = Viewer([run])
    viewer.refresh()
    assert SECRET not in viewer.page().text and SECRET.encode() not in viewer.data()
    last_step(run)


@pytest.fixture(autouse=True)
def _same_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path.cwd())  # and back


def test_links_inside_the_folder_are_followed_but_for_the_recipe(run: Path, tmp_path: Path) -> None:
    for name in (METRICS, RECIPE):
        (run / name).rename(run / f"other-{name}")
        (run / name).symlink_to(f"other-{name}")
    assert len(list(records(run / METRICS))) > 1
    assert read_recipe(run) == ({}, "")
    (tmp_path / "latest").symlink_to(run)  # the folder itself may be one
    assert len(list(records(tmp_path / "latest" / METRICS))) > 1
    with pytest.raises(OSError, match="a link to outside"):
        (run / "up").symlink_to(tmp_path / "run" / ".." / "x")
        open_plain(run / "up")


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000,
        "a" + ".a" * 8000 + " = 1",
        "a" + ' . "b.c"' * 8000 + " = 1",
        "[a" + ".a" * 400 + "]\n" + "b = 1\n" * 30_000,
        "\n".join(f"k{i}" + ".a" * 400 + " = 1" for i in range(500)),
        "a = " + "{a=" * 200 + "1" + "}" * 200,
        "x" * (2 << 20),
        "a = " + "9" * 10_000,
    ],
)
def test_the_recipe_has_the_guards_of_recipes(run: Path, text: str) -> None:
    (run / RECIPE).write_text(text)
    started = time.process_time()
    view = RunView(run)
    view.refresh()
    assert any("settings are unknown" in notice for notice in view.data("run")["notices"])
    assert time.process_time() - started < 5
    write_report(run)


@pytest.mark.parametrize("depth", [150, 400, 900, 100_000])
def test_nesting_without_end_is_left_out(run: Path, depth: int) -> None:
    node = '{"text":"x","children":[' * depth + "]}" * depth
    with (run / TREES).open("a") as file:
        file.write(f'{{"step": 3, "question": {{"id": "deep"}}, "responses": [{node}]}}\n')
    (run / SUMMARY).write_text('{"after": ' + '{"a":' * depth + "1" + "}" * depth + "}")
    with (run / METRICS).open("a") as file:
        file.write('{"step": 3, "eval": ' + "[" * depth + "]" * depth + "}\n")
    write_report(run)
    assert (read_json(run / SUMMARY) == {}) == (depth > 150)


def test_more_lines_than_anybody_reads_are_left_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motif.runs.read.MAX_RECORDS", 3)
    (run / METRICS).write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(9)))
    view = RunView(run)
    for _ in range(2):  # and they are not read again
        view.refresh()
        assert any("1 line could not be read" in notice for notice in view.data("run")["notices"])


def test_a_report_is_not_written_through_a_link(run: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    for name in (REPORT, f".{REPORT}.partial"):
        (run / name).symlink_to(tmp_path / "victim")
    write_report(run)
    assert (tmp_path / "victim").read_text() == "mine" and not (run / REPORT).is_symlink()
    os.mkfifo(run / ".x.partial")
    write_atomically(run / "x", "y")
    assert (run / "x").read_text() == "y"


# -- requests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["[evil", "evil]", "[", "[::1", "[zz]", "//[", "[::1]x]"])
def test_a_host_that_is_none_is_a_bad_request(run: Path, serve: Serve, host: str) -> None:  # noqa: F811
    server = serve(run)
    assert ask(server, "/data.json", Host=host)[0] == 400
    assert ask(server, "/data.json")[0] == 200


@pytest.mark.parametrize("target", ["http://[evil/", "//[evil", "http://[::1", "/%ff%fe?x=%"])
def test_an_address_that_is_none_is_refused(run: Path, serve: Serve, target: str) -> None:  # noqa: F811
    assert raw(serve(run), f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").split()[1] in (
        b"400",
        b"404",
    )


@pytest.mark.parametrize(
    "head",
    ["Content-Length: {n}", "Content-Length: {n}\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked",
     "Content-Length: x", "Content-Length: -5", "Content-Length: 1\r\nContent-Length: {n}"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_body_is_not_the_next_request(run: Path, serve: Serve, head: str, method: str) -> None:  # noqa: F811
    body = "GET /report.html HTTP/1.1\r\nHost: localhost\r\n\r\n"
    request = f"{method} /data.json HTTP/1.1\r\nHost: localhost\r\n{head.format(n=len(body))}\r\n\r\n{body}"
    answer = raw(serve(run), request)
    assert answer.count(b"HTTP/1.1 ") == 1 and b"attachment" not in answer


def test_two_hosts_are_a_bad_request(run: Path, serve: Serve) -> None:  # noqa: F811
    assert (
        raw(serve(run), "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n").split()[1]
        == b"400"
    )


def raw(server: ViewServer, request: str) -> bytes:
    with socket.create_connection(server.server_address[:2], timeout=120) as connection:
        connection.sendall(request.encode())
        connection.shutdown(socket.SHUT_WR)  # so that a connection kept for more requests ends, too
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
        return answer
