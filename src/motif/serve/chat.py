"""The chat page of the server: one file without anything from elsewhere, which asks the server that it came from."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from motif.report.page import assemble, asset

HERE = Path(__file__).parent / "assets"


class ChatPage:
    """Answers with the page. It reveals nothing about the model, so it needs no key: it asks for one."""

    def __init__(self) -> None:
        script, style = ((HERE / f"chat.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
        scripts = [asset("dom.js"), asset("numbers.js"), script]
        page = assemble("Chat – motif", "A page to ask this server.", {}, scripts, [style], live=True)
        self._body = page.text.encode()
        self._headers = {
            "Content-Security-Policy": f"{page.policy}; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }

    async def __call__(self, request: Request) -> Response:
        """Return the page."""
        return Response(self._body, media_type="text/html", headers=self._headers)
