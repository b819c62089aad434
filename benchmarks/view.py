"""How fast the page of a run with 2,000 trees is in a headless Chromium: live (`motif view`) and saved (`report.html`).

A made-up run of 500 steps: 4 questions a step, 8 responses, 4 trajectories each, 3 rounds; responses of about
`--words` words out of 4,000. Times are medians over `--repeats` fresh browser pages, in milliseconds:

* charts: from asking for the page until its charts stand; first_list: until its list of trees does (live, the server
  has to read trees.jsonl for it the first time: `index_seconds`); page: until a tree is open.
* open: from a click on a tree until its drawing and cards stand; filter, order: until the list is new;
  search: in questions, likewise; deep: in all responses.

    python benchmarks/view.py --json view.json
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from common import parser, table, write

from motif.report import write_report
from motif.report.server import Viewer, ViewServer

TIMES = ("charts", "first_list", "page", "open", "filter", "order", "search", "deep")
SEEN = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"  # drawn, not only asked for


def made_up(run: Path, steps: int, words: int) -> None:
    """A run folder with 4 trees a step."""
    rng = random.Random(0)
    known = ["".join(rng.choices("etaoinshrdlucmfwyp", k=rng.randint(2, 9))) for _ in range(4_000)]

    def say(count: int) -> str:
        return " ".join(rng.choices(known, k=count))

    def node(depth: int) -> dict[str, Any]:
        right = rng.random() < 0.5
        text = {"text": f"<think>{say(words)}</think><note>{say(20)}</note>", "note": say(20), "answer": None}
        numbers = {"tokens": words, "prompt_tokens": 80, "value": 0.5, "reward": 1.5, "advantage": 0.1}
        flags = {"truncated": False, "well_formed": True}
        below = {1: 4, 2: 1}.get(depth)
        if below:
            return text | numbers | flags | {"children": [node(depth + 1) for _ in range(below)]}
        return text | numbers | flags | {"answer": "12", "verdict": "right" if right else "wrong", "reason": "equal"}

    with (run / "trees.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            for _ in range(4):
                question = {"id": f"q{rng.randrange(400)}", "text": say(40), "gold": "12"}
                responses = [node(1) for _ in range(8)]
                file.write(json.dumps({"step": step, "question": question, "responses": responses}) + "\n")
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            keys = (
                "reward",
                "outcome/mean",
                "entropy",
                "grad_norm",
                "sampler/mean_gap",
                "dead_groups",
                "length/round_1",
            )
            numbers = {key: rng.random() for key in keys} | {"groups": 4, "outcome/rate_counts": [8, 8, 8, 4, 4]}
            spent = {f"ledger/{key}": step * 1000 for key in ("generated_tokens", "seconds", "flops")}
            file.write(json.dumps({"step": step} | numbers | spent) + "\n")
    (run / "recipe.toml").write_text('name = "made up"\n[rollout]\nbranching = [8, 4, 1]\n')


def measure(chromium: Any, url: str) -> dict[str, float]:
    """Milliseconds of everything in `TIMES`, in a fresh page."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    found: dict[str, float] = {}

    def timed(name: str, do: Any, until: Any) -> None:
        start = time.perf_counter()
        do()
        until()
        page.evaluate(SEEN)
        found[name] = 1000 * (time.perf_counter() - start)

    start = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.locator(".plot canvas").nth(5).wait_for(state="attached")
    found["charts"] = 1000 * (time.perf_counter() - start)
    page.locator(".questions button").first.wait_for()
    found["first_list"] = 1000 * (time.perf_counter() - start)
    page.locator(".cards").wait_for()
    page.evaluate(SEEN)
    found["page"] = 1000 * (time.perf_counter() - start)
    last = page.locator(".questions button").nth(10)
    text = last.locator(".q").inner_text()
    shown = page.locator(".question .verbatim", has_text=text).first
    timed("open", last.click, shown.wait_for)
    count = page.locator("#tree-count")
    timed(
        "filter", page.locator(".kinds label", has_text="Never").click, page.locator("[value=never]:checked").wait_for
    )
    page.locator(".kinds label", has_text="All").first.click()
    first = page.locator(".questions button").first.get_attribute("data-tree")
    other = page.locator(f".questions li:first-child button:not([data-tree='{first}'])")
    order = page.locator("#tree-order")
    timed("order", lambda: order.select_option("oldest"), other.wait_for)
    timed("search", lambda: page.locator("#tree-search").fill("q77"), count.inner_text)
    page.locator("#tree-search").fill("etaoin nowhere")
    done = page.locator("#tree-count", has_text="no tree matches")
    deep = page.get_by_label("also in responses")
    timed("deep", deep.check, done.wait_for)
    page.close()
    return found


def main() -> None:
    """Make the run, measure, print, and write."""
    options = parser(__doc__)
    options.add_argument("--words", type=int, default=150, help="words in a response (default: %(default)s)")
    asked = options.parse_args()
    from playwright.sync_api import sync_playwright

    chrome = shutil.which("chromium") or shutil.which("google-chrome")
    steps, repeats = (5, 1) if asked.quick else (500, asked.repeats)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run = Path(folder)
        made_up(run, steps, asked.words)
        start = time.perf_counter()
        saved = write_report(run)
        numbers: dict[str, Any] = {
            "trees": 4 * steps,
            "trees_mb": (run / "trees.jsonl").stat().st_size / 1e6,
            "saved_mb": saved.stat().st_size / 1e6,
            "save_seconds": time.perf_counter() - start,
        }
        data = json.loads(saved.read_text().partition('id="data">')[2].partition("</script>")[0])
        numbers["saved_trees"] = len(data["runs"][0]["trees"]["heads"])
        viewer = Viewer([run])
        start = time.perf_counter()
        viewer.refresh()
        numbers["index_seconds"] = time.perf_counter() - start
        server = ViewServer(viewer, "127.0.0.1", 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium = playwright.chromium.launch(executable_path=chrome, args=["--no-sandbox"])
        for way, url in (("live", server.url), ("saved", saved.as_uri())):
            runs = [measure(chromium, url) for _ in range(repeats)]
            numbers[way] = {name: statistics.median(one[name] for one in runs) for name in TIMES}
        chromium.close()
        server.shutdown()
    table(
        f"{numbers['trees']:,} trees, {numbers['trees_mb']:.0f} MB; saved in {numbers['save_seconds']:.1f} s "
        f"as {numbers['saved_mb']:.1f} MB with {numbers['saved_trees']:,} trees; "
        f"index in {numbers['index_seconds']:.1f} s",
        ["milliseconds", "live", "saved"],
        [[name, round(numbers["live"][name]), round(numbers["saved"][name])] for name in TIMES],
    )
    write(asked.json, numbers)


if __name__ == "__main__":
    main()
