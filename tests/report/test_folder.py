"""`motif view` on a folder of runs: its table, and the pages of the runs below it."""

import http.client
import json
import socket
import threading
from urllib.parse import quote

import pytest

from motif.report.folder import FolderView
from motif.report.server import ViewServer
from motif.runs.folder import only_writer
from support.browser import expect, needs_browser
from support.runs import fake_run

HOSTILE = "<b>&'run"


@pytest.fixture
def ask(tmp_path):
    """Asks the server of the folder `runs`, which is not there yet, and answers with status, headers and text."""
    server = ViewServer(FolderView(tmp_path / "runs"), "127.0.0.1", socket.create_server(("127.0.0.1", 0)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def get(path):
        connection = http.client.HTTPConnection(*server.server_address[:2], timeout=120)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, dict(answer.getheaders()), text

    get.url = server.url
    yield get
    server.shutdown()
    server.server_close()


def test_the_table_shows_runs_as_they_come(tmp_path, ask):
    assert "no run in this folder yet" in ask("/")[2]
    fake_run(tmp_path / "runs/study/arm", steps=3, after=None)
    with only_writer(tmp_path / "runs/new"):
        status, headers, page = ask("/")
        assert status == 200 and "running" in page and "stopped" in page and "3 of 60" in page
        assert "default-src 'none'" in headers["Content-Security-Policy"]
    for name in ("study/arm", "new"):
        assert f'href="/run/{name}/"' in page
        status, _, body = ask(f"/run/{name}/data.json")
        assert status == 200 and json.loads(body)["runs"][0]["name"] == name.rpartition("/")[2]
        assert ask(f"/run/{name}/")[0] == 200
    assert len(json.loads(ask("/side/data.json")[2])["runs"]) == 2


@needs_browser
def test_the_page_of_a_run_leads_back_to_the_table(tmp_path, ask, browser):
    fake_run(tmp_path / "runs/arm", steps=3, after=None)
    with browser.open(f"{ask.url}run/arm/") as page:
        page.get_by_role("link", name="all runs").click()
        expect(page.get_by_role("link", name="arm")).to_be_visible()


def test_names_are_text_and_addresses_are_never_paths(tmp_path, ask):
    fake_run(tmp_path / "runs" / HOSTILE, steps=1)
    fake_run(tmp_path / "runs/other", steps=1)
    fake_run(tmp_path / "outside", steps=1)
    page = ask("/")[2]
    assert HOSTILE not in page and "&lt;b&gt;&amp;&#x27;run" in page
    assert ask(f"/run/{quote(HOSTILE)}/data.json")[0] == 200
    for path in ("/data.json", "/run/outside/", "/run/../outside/", "/run/other", "/run/other/recipe.toml", "/run//"):
        assert ask(path)[0] == 404, path


def test_a_folder_that_becomes_a_run_shows_it(tmp_path, ask):
    assert "no run" in ask("/")[2]
    fake_run(tmp_path / "runs", steps=1)
    assert 'main class="runs"' not in ask("/")[2]
    assert json.loads(ask("/data.json")[2])["runs"][0]["name"] == "runs"
