"""A real headless browser, driven by Playwright, that minds errors and requests to elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

try:
    from playwright.sync_api import expect
except ImportError:
    expect: Any = None  # type: ignore[no-redef]  # and `needs_browser` skips whatever would use it
else:
    expect.set_options(timeout=60_000)

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def missing() -> str | None:
    """Why there is no browser here, or None."""
    if not expect:
        return "Playwright is not installed"
    return None if CHROME else "no Chromium or Chrome found"


needs_browser = pytest.mark.skipif(missing() is not None, reason=missing() or "")


class Browser:
    """Opens pages, and remembers what went wrong in them."""

    def __init__(self, chromium: Any):
        self._chromium = chromium
        self.complaints: list[str] = []

    @contextmanager
    def open(self, address: str | Path, allowed: tuple[str, ...] = (), **settings: Any) -> Iterator[Any]:
        """A page at an address or file, ready; closed afterwards, when it must have had nothing to complain about.

        Complaints that hold one of the `allowed` texts do not count.
        """
        url = address.as_uri() if isinstance(address, Path) else address
        context = self._chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | settings))
        page = context.new_page()
        page.set_default_timeout(60_000)
        complaints: list[str] = []
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        origin = url.partition("#")[0] if url.startswith("file:") else "/".join(url.split("/")[:3])
        page.on("request", lambda asked: None if asked.url.startswith(origin) else complaints.append(asked.url[:200]))
        try:
            page.goto(url)
            page.wait_for_selector("html[data-ready=true]")
            yield page
            assert [text for text in complaints if not any(part in text for part in allowed)] == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        finally:
            context.close()
