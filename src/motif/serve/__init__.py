"""`motif serve`: an OpenAI-compatible server that thinks in rounds (docs/serving.md).

    protocol.py    the request and response models; openapi.py describes them as an OpenAPI document
    requests.py    from a request to plans for `motif.sampling.answer`
    answering.py   generates the answers of one request, within its limits
    replies.py     from traces to responses, in one piece or streamed
    service.py     the served model and all that its requests share
    app.py         routes and errors; middleware.py surrounds them with keys, bodies and the log
    admission.py   limits, and the queue of requests that wait
    metrics.py     counts, tokens and times for Prometheus
    run.py         opens the model here or on another server, and runs the server

`app.py`, `middleware.py`, `metrics.py`, what imports them, and `run.py` need the extra `serve`.
"""

from __future__ import annotations

import importlib.util

from motif.errors import UsageError


def require_extra() -> None:
    """Check that the extra `serve` is installed.

    Raises:
        UsageError: it is not.
    """
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn", "prometheus_client")):
        raise UsageError("motif serve needs the extra 'serve': pip install 'motif-rl[serve]'")
