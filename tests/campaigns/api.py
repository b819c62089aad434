"""Requests that fit the server's description, and requests that do not, made up by schemathesis and sent to a server.

    make test-api SECONDS=600

Wanted: never a 5xx, every answer as its schema says, nothing wrong accepted, nothing right refused but for the rules
that the description names, and no answer without the key. OUT/summary.json has the counts. The exit status is 1 if
anything is otherwise. schemathesis lives in an environment of its own, which `make test-api` makes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from server import Server
from wire import fields, get

LIMITS = {"concurrency": 8, "queue": 16, "timeout": 60}
"""Few answers at once, so that no request takes long."""
HERE = Path(__file__).parent


def run(tool: str, seconds: int, seed: int, out: Path) -> dict[str, Any]:
    """The campaign; returns the summary, which is also in OUT/summary.json."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if os.sep in tool:
        tool = str(Path(tool).absolute())  # it runs in OUT, where it leaves its cache
    server = Server(LIMITS, out / "server.log")
    try:
        options = ["--exclude-checks=positive_data_acceptance", "--continue-on-failure", "--report=json"]
        options += [f"--report-json-path={out / 'report.json'}", f"--max-time={seconds}", f"--seed={seed}"]
        options += ["--header", f"Authorization: Bearer {server.key}", "--request-timeout=90"]
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "api_checks", "PYTHONPATH": str(HERE)}
        url = f"http://127.0.0.1:{server.port}/openapi.json"
        subprocess.run([tool, "--no-color", "run", url, *options], env=environment, cwd=out, check=False)
        counted = fields(asyncio.run(get(server.port, "/metrics", server.key)).body.decode())
    finally:
        status = server.stop()
    summary = _summary(json.loads((out / "report.json").read_text()), counted)
    log = server.log.read_text()
    if status != 0 or "Traceback" in log:
        summary["problems"].append(f"the server ended with {status}; its log: {log[-1000:]}")
    (out / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    return summary


def _summary(report: dict[str, Any], counted: dict[str, float]) -> dict[str, Any]:
    statuses: Counter[str] = Counter()
    for name, count in counted.items():
        if name.startswith("motif_requests_total") and (found := re.search(r'path="(.*)",status="(\d+)"', name)):
            statuses[f"{found[1]} {found[2]}"] += int(count)
    problems = [f"{failure['title']}: {failure['operations']}" for failure in report["failures"]]
    problems += [f"error: {error}" for error in report["errors"]]
    problems += [f"{name}: {count}" for name, count in statuses.items() if name.split(" ")[1].startswith("5")]
    return {
        "schemathesis": report["schemathesis_version"],
        "seed": report["seed"],
        "seconds": round(report["running_time"]),
        "cases": report["test_cases"]["generated"],
        "cases_with_failures": report["test_cases"]["with_failures"],
        "phases": {name: phase["status"] for name, phase in report["phases"].items()},
        "requests_by_route_and_status": dict(sorted(statuses.items())),
        "problems": problems,
    }


def main() -> int:
    """The campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schemathesis", default="schemathesis", help="the command, if it is not in PATH")
    parser.add_argument("--out", type=Path, default=Path("runs/api"))
    options = parser.parse_args()
    summary = run(options.schemathesis, options.seconds, options.seed, options.out)
    print(json.dumps(summary, indent=1, ensure_ascii=False))
    return 1 if summary["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
