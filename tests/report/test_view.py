"""The page in a real browser, live and saved: every part reached by clicks and keys, nothing fetched, nothing run."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from motif.cli.app import app
from motif.report import page as page_of_runs
from motif.report import save_page, write_report
from motif.report.server import Viewer, ViewServer
from support.browser import Browser, expect, needs_browser
from support.runs import HOSTILE, fake_run

Serve = Callable[..., ViewServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers on free ports, and ends them with the test."""
    servers: list[ViewServer] = []

    def start(*runs: Path) -> ViewServer:
        server = ViewServer(Viewer(runs), "127.0.0.1", socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(server: ViewServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=120)
    connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {key.lower(): value for key, value in answer.getheaders()}, body


# -- the server --------------------------------------------------------------------------------------------------------


def test_the_server_answers_what_the_page_asks(tmp_path: Path, serve: Serve) -> None:
    run = fake_run(tmp_path / "run", steps=3, text=HOSTILE)
    server = serve(run)
    status, headers, page = ask(server, "/")
    assert status == 200 and b"motif" in page
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and headers["x-content-type-options"] == "nosniff"
    status, headers, body = ask(server, "/data.json", Accept_Encoding="gzip")
    data = json.loads(gzip.decompress(body))
    assert data["runs"][0]["trees"]["count"] == 12
    assert ask(server, "/data.json", If_None_Match=headers["etag"])[0] == 304
    assert ask(server, "/data.json", "HEAD")[2] == b""
    epoch = data["runs"][0]["trees"]["epoch"]
    heads = json.loads(ask(server, f"/heads.json?run=0&epoch={epoch}&first=10")[2])
    assert (heads["first"], len(heads["heads"])) == (10, 2)
    assert len(json.loads(ask(server, "/heads.json?run=0&epoch=other&first=10")[2])["heads"]) == 12
    tree = json.loads(ask(server, f"/tree.json?run=0&epoch={epoch}&place=11")[2])
    assert tree["step"] == 3 and tree["responses"][0]["text"] == HOSTILE.replace("\ud800", "?")
    assert json.loads(ask(server, "/containing.json?run=0&text=onerror")[2])["places"] == list(range(12))
    status, headers, saved = ask(server, "/report.html")
    assert "attachment" in headers["content-disposition"] and saved == write_report(run).read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        *("/metrics.jsonl", "/../recipe.toml", "/%2e%2e/etc/passwd", "//etc/passwd", "/tree.json", "/data.json/x"),
        *("/tree.json?run=0&place=9", "/tree.json?run=7&epoch=0.0&place=0", "/tree.json?run=-1&epoch=0.0&place=0"),
        *("/heads.json?run=x", "//[evil/"),
    ],
)
def test_the_server_knows_its_own_addresses_only(tmp_path: Path, serve: Serve, path: str) -> None:
    server = serve(fake_run(tmp_path / "run", steps=1))
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize(
    ("host", "status"), [("evil.example", 421), ("evil.example:80", 421), ("", 421), ("[evil", 400), ("[::1]:9", 200)]
)
def test_another_name_is_refused(tmp_path: Path, serve: Serve, host: str, status: int) -> None:
    server = serve(fake_run(tmp_path / "run", steps=1))
    assert ask(server, "/data.json", Host=host)[0] == status
    assert ask(server, "/data.json", Host=f"localhost:{server.server_address[1]}")[0] == 200
    assert ask(server, "/", "POST")[0] == 501


def test_a_body_is_no_next_request(tmp_path: Path, serve: Serve) -> None:
    server = serve(fake_run(tmp_path / "run", steps=1))
    hidden = b"GET /data.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for field in (b"Content-Length: %d" % len(hidden), b"Transfer-Encoding: chunked"):
        with socket.create_connection(server.server_address, timeout=120) as client:
            client.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n" + field + b"\r\n\r\n" + hidden)
            found = b""
            with contextlib.suppress(ConnectionResetError):  # as what was sent is not read
                while part := client.recv(4096):
                    found += part
        assert found.count(b"HTTP/1.1 ") <= 1 and b" 200 " not in found


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", steps=1)
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ([str(tmp_path / "none"), "--save", "x.html"], "no such folder"),
        ([str(tmp_path / "empty"), "--save", "x.html"], "no run in it"),
        ([str(run), str(tmp_path / "empty")], "not a run folder"),
        ([str(run / "recipe.toml")], "is a file"),
        ([str(run), str(run)], "the same run is given twice"),
        ([str(run), "--save", str(tmp_path / "no" / "where.html")], "no such folder: choose another --save"),
        ([str(run), "--no-browser", "--host", "no.such.host.invalid"], "cannot listen on"),
    ):
        result = CliRunner().invoke(app, ["view", *arguments])
        assert result.exit_code == 2 and words in result.output, arguments
    # Outside this process, whose guard refuses to look up what is not this machine's.
    elsewhere = [sys.executable, "-m", "motif", "view", str(run), "--no-browser", "--host", "203.0.113.7"]
    done = subprocess.run(elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "cannot listen on 203.0.113.7" in done.stderr and "another --host" in done.stderr
    result = CliRunner().invoke(app, ["view", str(run), "--save", str(tmp_path / "x.html")])
    assert result.exit_code == 0 and (tmp_path / "x.html").stat().st_size > 50_000


# -- in a browser ------------------------------------------------------------------------------------------------------

CASES: dict[str, dict[str, Any]] = {
    "finished": {"steps": 20},
    "probed": {"steps": 8, "probed": True},
    "stopped": {"steps": 2, "after": None},
    "hostile": {"steps": 2, "text": HOSTILE},
    "one round": {"steps": 2, "branching": (8,)},
    "deep": {"steps": 12, "branching": (2, 2, 2, 1)},
    "nothing": {"steps": 0, "after": None},
}


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_saved_page_draws_itself(tmp_path: Path, browser: Browser, case: str) -> None:
    run = fake_run(tmp_path / "run", **CASES[case])
    if case == "nothing":
        for file in run.iterdir():
            file.unlink()
    with browser.open(write_report(run)) as page:
        if case == "nothing":
            page.get_by_text("No trees have been recorded.").wait_for()
            return
        page.locator(".part").first.wait_for()
        page.locator(".plot canvas").nth(9).wait_for(state="attached")
        expect(page.locator("svg.stack")).to_have_count(2)
        expect(page.locator(".diagram")).to_have_count(1)
        expect(page.get_by_role("heading", name="What the note is worth")).to_have_count(int(case == "probed"))
        assert page.locator("img, iframe, main script").count() == 0
        if case == "hostile":
            text = page.get_by_label("Round 1 · response 1 of 8: text", exact=True)
            page.locator('[data-path="0"] .dot').click()
            assert text.evaluate("(node) => node.textContent") == HOSTILE.replace("\ud800", "?")  # waits for the node
            assert text.evaluate("(node) => node.children.length") == 0


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The saved page of two runs, and the id of the first run's first question, which comes back at its end."""
    folder = tmp_path_factory.mktemp("two")
    runs = [fake_run(folder / name, steps=20, questions=3, seed=seed) for name, seed in (("one", 0), ("two", 1))]
    lines = (runs[0] / "trees.jsonl").read_text().splitlines(keepends=True)
    again = json.loads(lines[0]) | {"step": 20}
    (runs[0] / "trees.jsonl").write_text("".join([*lines, json.dumps(again) + "\n"]))
    return save_page(runs, folder / "both.html"), again["question"]["id"]


def assert_legible(page: Any, picture: Path) -> None:
    """A picture has a size of its own, and its legend ends before its right edge."""
    width, stray = page.evaluate(
        """async (packed) => {
          const image = await createImageBitmap(new Blob([Uint8Array.from(atob(packed), (c) => c.charCodeAt(0))]));
          const canvas = new OffscreenCanvas(image.width, image.height), ctx = canvas.getContext("2d");
          ctx.drawImage(image, 0, 0);
          const edge = ctx.getImageData(image.width - 6, 0, 6, 60).data;
          return [image.width, edge.filter((value, at) => value !== edge[at % 4]).length];
        }""",
        base64.b64encode(picture.read_bytes()).decode(),
    )
    assert width >= 900 and stray == 0


@needs_browser
@pytest.mark.slow
def test_a_log_scale_says_what_it_leaves_out_and_a_narrow_page_has_whole_pictures(
    two_runs: tuple[Path, str], browser: Browser
) -> None:
    with browser.open(two_runs[0], viewport={"width": 390, "height": 800}) as page:
        chart = page.locator("#chart-dead")
        chart.locator("summary").click()
        chart.get_by_role("button", name="Log scale").click()
        expect(chart.locator("figcaption")).to_contain_text("Values of 0 and below have no place on a log scale.")
        chart.get_by_role("button", name="Log scale").click()
        expect(chart.locator("figcaption")).not_to_contain_text("log scale")
        length = page.locator("#chart-length")  # its legend needs several lines
        length.locator("summary").click()
        with page.expect_download() as saved:
            length.get_by_role("button", name="PNG").click()
        assert_legible(page, saved.value.path())
        assert page.evaluate("[brief(0.0001, 'percent'), brief(0.123, 'percent'), brief(0.5, 'percent')]") == [
            "0.01", "12.3", "50",
        ]  # fmt: skip


@needs_browser
@pytest.mark.slow
def test_charts_and_recipes_are_reached_by_clicks(two_runs: tuple[Path, str], browser: Browser) -> None:
    with browser.open(two_runs[0]) as page:
        for link in page.locator("#nav a").all():
            link.click()
            target = link.get_attribute("href")
            expect(page.locator(f"section{target} h2")).to_be_visible()
        # Charts: against what, which runs, the values.
        reward = page.locator("#chart-reward")
        plot = reward.locator(".plot")
        expect(plot).to_have_attribute("aria-label", re.compile(r"against training step.*one · outcome from", re.S))
        page.locator("#axis").select_option("generated_tokens")
        expect(plot).to_have_attribute("aria-label", re.compile("against generated tokens"))
        page.locator(".runs label", has_text="two").click()
        expect(plot).not_to_have_attribute("aria-label", re.compile("two ·"))
        expect(plot).to_have_attribute("aria-label", re.compile("one · outcome"))
        expect(page.locator("figure[id^=chart-rates]:visible")).to_have_count(1)
        reward.locator("summary").click()
        expect(reward.locator("tbody tr")).to_have_count(20)
        plot.hover()
        expect(page.locator("#tip")).to_contain_text("outcome")
        reward.get_by_role("button", name="Log scale").click()
        expect(reward.get_by_role("button", name="Log scale")).to_have_attribute("aria-pressed", "true")
        expect(plot.locator("canvas")).to_have_count(1)
        expect(reward.locator("figcaption")).not_to_contain_text("log scale")  # no reward is 0
        for kind, start in (("CSV", b"generated tokens,one outcome"), ("PNG", b"\x89PNG")):
            with page.expect_download() as saved:
                reward.get_by_role("button", name=kind).click()
            assert saved.value.path().read_bytes().startswith(start)
        assert_legible(page, saved.value.path())
        page.locator("#recipe summary").first.click()
        expect(page.locator("#recipe pre").first).to_contain_text("branching")
        expect(page.locator("#recipe .differences")).to_contain_text("train.seed")


@needs_browser
@pytest.mark.slow
def test_trees_are_filtered_ordered_and_compared_by_clicks(two_runs: tuple[Path, str], browser: Browser) -> None:
    file, question = two_runs
    with browser.open(file) as page:
        total, count = page.locator("[data-kind=all]"), page.locator("#tree-count")
        expect(total).to_have_text("121")
        for shown in ("1–50 of 121", "51–100 of 121", "101–121 of 121"):
            expect(count).to_have_text(shown)
            if shown != "101–121 of 121":
                page.get_by_role("button", name="Next ›").click()
        page.locator("#tree-run").select_option("0")
        expect(total).to_have_text("61")
        counts = [int(page.locator(f"[data-kind={kind}]").inner_text()) for kind in ("mixed", "never", "always")]
        assert sum(counts) == 61 and counts[0] > 0
        page.locator(".kinds label", has_text="Mixed outcomes").click()
        expect(count).to_have_text(re.compile(rf" of {counts[0]}$"))
        page.wait_for_function(
            """() => {
              const texts = [...document.querySelectorAll(".questions .sub")].map((part) => part.innerText);
              const spreads = texts.map((text) => parseFloat(text.split("spread ")[1]));
              return spreads[0] > spreads.at(-1) && spreads.every((spread, i) => i === 0 || spreads[i - 1] >= spread);
            }"""
        )
        page.locator(".kinds label", has_text="All").first.click()
        expect(count).to_have_text(re.compile(" of 61$"))
        page.locator("#tree-search").fill(question)
        expect(page.locator(".questions button")).to_have_count(2)
        page.locator(".questions button").first.click()
        page.get_by_label("The same question in other trees").select_option(index=1)
        heads = page.locator(".pair .tree .question > .sub")
        expect(heads).to_have_text([re.compile("^step 1 ·"), re.compile("^step 20 ·")])
        page.get_by_role("button", name="Stop comparing").click()
        page.locator(".trees-shown:not(.pair) .tree").wait_for()
        page.locator('[data-path="0.1.0"] .dot').click()
        expect(page.locator(".part")).to_have_count(3)  # a round each
        expect(page.locator(".part[open]")).to_have_count(1)
        expect(page.locator(".part[open] mark").last).to_contain_text("final (3 of 3) round")
        expect(page.locator(".part[open] .verdict")).to_be_visible()
        page.locator("#tree-search").fill("no such text")
        expect(count).to_have_text("no tree matches")
        page.get_by_label("also in responses").check()
        page.locator("#tree-search").fill("I split 9")
        expect(count).to_contain_text(" of ")
        assert 0 < int(count.inner_text().split(" of ")[1]) < 61


@needs_browser
@pytest.mark.slow
def test_everything_works_from_the_keyboard(tmp_path: Path, browser: Browser) -> None:
    run = fake_run(tmp_path / "run", steps=6, questions=2)
    with browser.open(write_report(run)) as page:
        page.locator(".part").first.wait_for()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the trees"
        seen = set()
        for _ in range(75):
            page.keyboard.press("Tab")
            seen.add(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('class')"))
        assert {"axis", "theme", "plot", "scroll", "tree-step", "tree-order", "tree-search", "tree-deep"} <= seen
        page.locator("#chart-reward .plot").focus()
        page.keyboard.press("End")
        expect(page.locator("#tip")).to_contain_text("step 6")
        expect(page.locator("#live")).to_contain_text("step 6")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#live")).to_contain_text("step 5")
        page.keyboard.press("Escape")
        expect(page.locator("#tip")).to_be_hidden()
        before = page.url
        page.locator(".questions button").first.focus()
        page.keyboard.press("ArrowDown")
        expect(page.locator(".questions button").nth(1)).to_have_attribute("aria-current", "true")
        expect(page).not_to_have_url(before)  # which follows the tree, and the tree the button
        expect(page.locator(".part[open] .why")).to_contain_text("× form")
        # From response to response; a link leads back to the one that was chosen last.
        page.locator('[data-path][aria-current="true"]').focus()
        for key in ("Home", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowUp"):
            page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.path") == "0.1"
        expect(page.locator(".part")).to_have_count(2)
        chosen = page.locator(".question .verbatim").first.inner_text()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.matches('.part[open] > summary')")
        address = page.url
        assert address.endswith("/0.1")
    with browser.open(address) as page:
        expect(page.locator('[data-path="0.1"]')).to_have_attribute("aria-current", "true")
        assert page.locator(".question .verbatim").first.inner_text() == chosen


@needs_browser
@pytest.mark.slow
def test_what_a_run_appends_appears(
    tmp_path: Path, browser: Browser, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = page_of_runs.asset
    monkeypatch.setattr(page_of_runs, "asset", lambda name: asset(name).replace("EVERY = 2000", "EVERY = 300"))
    whole = fake_run(tmp_path / "whole", steps=12)
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(whole / "recipe.toml", run)
    metrics, trees = ((whole / name).read_text().splitlines(keepends=True) for name in ("metrics.jsonl", "trees.jsonl"))
    server = serve(run)

    def append(name: str, *lines: str) -> None:
        with (run / name).open("a") as file:
            file.writelines(lines)

    with browser.open(server.url) as page:
        page.get_by_text("No trees have been recorded.").wait_for()
        append("metrics.jsonl", *metrics[:4])
        page.locator("#status", has_text="step 3").wait_for()
        reward, before = page.locator("#chart-reward"), page.locator("figure.chart").count()
        reward.locator("summary").click()
        reward.get_by_role("button", name="Log scale").click()
        append("trees.jsonl", *trees[:12])
        page.locator(".part").first.wait_for()
        assert page.locator("figure.chart").count() > before  # charts of trees have joined those that were there
        expect(reward.get_by_role("button", name="Log scale")).to_have_attribute("aria-pressed", "true")
        expect(reward.locator("tbody tr").first).to_be_visible()
        page.locator("#chart-reward .plot canvas").wait_for()
        page.locator('[data-path="1"] .dot').click()
        chosen = page.locator(".question .verbatim").first.inner_text()
        page.locator("#chart-reward .plot").focus()
        append("metrics.jsonl", *metrics[4:9], metrics[9][:40])  # the last line is half written
        append("trees.jsonl", *trees[12:32])
        page.locator("#status", has_text="step 8").wait_for()
        expect(page.locator("[data-kind=all]")).to_have_text("32")
        expect(page.locator("#chart-reward .plot")).to_have_attribute("aria-label", re.compile("at step 8"))
        # What a reader was at is as it was.
        assert page.evaluate("document.activeElement.className") == "plot"
        assert page.locator(".question .verbatim").first.inner_text() == chosen
        expect(page.locator('[data-path="1"]')).to_have_attribute("aria-current", "true")
        # Paused, nothing moves; then the run is started again from nothing.
        page.get_by_role("button", name="Pause").click()
        (run / "trees.jsonl").unlink()
        (run / "metrics.jsonl").unlink()
        append("metrics.jsonl", *metrics[:2])
        append("trees.jsonl", *trees[:4])
        page.wait_for_timeout(800)
        assert page.locator("[data-kind=all]").inner_text() == "32"
        page.get_by_role("button", name="Pause").click()
        page.locator("#status", has_text="step 1").wait_for()
        expect(page.locator("[data-kind=all]")).to_have_text("4")
        shutil.copy(whole / "summary.json", run)
        page.locator("#head", has_text="rose from").wait_for()
        with page.expect_download() as saved:
            page.get_by_role("link", name="Save as file").click()
        saved.value.save_as(tmp_path / "saved.html")
    with browser.open(tmp_path / "saved.html") as page:
        expect(page.locator("[data-kind=all]")).to_have_text("4")


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_it_is_accessible(tmp_path: Path, browser: Browser, width: int, scheme: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    small: dict[str, Any] = {"steps": 3, "questions": 1, "branching": (3, 2, 1), "probed": True}
    runs = [fake_run(tmp_path / name, seed=seed, **small) for name, seed in (("one", 0), ("two", 1))]
    settings = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "bypass_csp": True}
    with browser.open(save_page(runs, tmp_path / "both.html"), **settings) as page:
        page.locator(".part pre").first.wait_for()
        page.locator("#chart-reward summary").click()
        page.locator("#chart-reward tbody tr").first.wait_for()
        found = axe.run(page).response["violations"]
        told = [(one["id"], [node["target"] for node in one["nodes"]][:3]) for one in found]
        assert told == []
