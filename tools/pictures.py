"""Takes the pictures in docs/figures that `tools/figures.py` cannot draw: of a terminal, and of pages in a browser.

    python tools/pictures.py record FOLDER   # what `motif train demo` prints, and when (docs/figures/terminal.json)
    python tools/pictures.py page RUN        # the page of a run: live.png while it trains; else page.png, explorer.png
    python tools/pictures.py chat RUN        # the chat page of `motif serve RUN`, while a round is thought

Pages need Chromium or Chrome and playwright. `python tools/figures.py` draws the recording.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from figures import COLUMNS, FIGURES

COUNTER = re.compile(r"  [^:]*(: trajectories)?: \d+ of \d+")
"""What is printed now and then where the output is not a terminal, which has a bar instead."""
WAIT = 120_000
"""Milliseconds in which a page has to do what is asked of it."""


def record(folder: Path) -> None:
    """Keep what `motif train demo` prints in a folder, and when: only of a run that has come to its end."""
    settings = os.environ | {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "motif", "train", "demo"]
    folder.mkdir(parents=True, exist_ok=True)
    started, lines = time.monotonic(), []
    process = subprocess.Popen(
        command, cwd=folder, env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if not COUNTER.fullmatch(line.rstrip()):
                lines.append([round(time.monotonic() - started, 2), line.rstrip()])
    finally:
        if process.poll() is None and sys.exc_info()[0]:
            process.terminate()
        failed = process.wait()
    if failed or not lines:
        raise SystemExit(f"motif train demo ended with {failed}: {lines[-1][1] if lines else 'nothing was printed'}")
    (FIGURES / "terminal.json").write_text(json.dumps(lines, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


SLOWLY = """
const read = ReadableStreamDefaultReader.prototype.read;
ReadableStreamDefaultReader.prototype.read = async function () {
  await new Promise((done) => setTimeout(done, 150));
  return read.call(this);
};
"""
"""Lets an answer arrive as slowly as that of a large model, so that a picture can be taken on the way."""


@contextlib.contextmanager
def opened(address: str, slowly: bool = False) -> Iterator[Any]:
    """A page in Chromium, ready."""
    from playwright.sync_api import sync_playwright

    chrome = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chrome, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 960, "height": 860}, device_scale_factor=1.5, color_scheme="light")
        page.set_default_timeout(WAIT)
        if slowly:
            page.add_init_script(SLOWLY)
        page.goto(address)
        page.wait_for_selector("html[data-ready=true]")
        yield page
        browser.close()


def take(page: Any, name: str) -> None:
    """Keep what the page shows, in few colours."""
    from PIL import Image

    page.wait_for_timeout(1000)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    picture.save(FIGURES / name, optimize=True)
    print(f"{name}: {(FIGURES / name).stat().st_size // 1024} KiB")


def photograph(run: Path) -> None:
    """Pictures of a run's page: its first screen, which is another one while it trains, and afterwards its trees."""
    from motif.report.server import Viewer, ViewServer
    from motif.runs.state import state_of

    running = state_of(run).state == "running"
    with ViewServer(Viewer([run]), "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with opened(server.url) as page:
            page.locator("#tree .tree").first.wait_for()
            take(page, "live.png" if running else "page.png")
            if not running:
                page.set_viewport_size({"width": 960, "height": 1330})  # down to the reward of a response
                page.evaluate("document.querySelector('#tree .tree').scrollIntoView()")
                take(page, "explorer.png")
        server.shutdown()


def photograph_chat(run: Path) -> None:
    """A picture of the chat page of `motif serve`, while the second round is thought."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "motif", "serve", str(run), "--port", str(port)])
    address = f"http://127.0.0.1:{port}/"
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(address):
                break
            time.sleep(0.5)
        with opened(address, slowly=True) as page:
            page.get_by_label("Question", exact=True).fill("What is 43 × 77?")
            page.get_by_role("button", name="Send").click()
            page.locator(".rounds details").nth(1).wait_for()
            take(page, "chat.png")
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Take one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "page", "chat"))
    parser.add_argument("folder", type=Path, help="a run; or the folder to record in, whose runs/demo is new")
    options = parser.parse_args()
    {"record": record, "page": photograph, "chat": photograph_chat}[options.what](options.folder)


if __name__ == "__main__":
    main()
