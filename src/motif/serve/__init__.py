"""`motif serve`: an OpenAI-compatible server that thinks in rounds (docs/serving.md).

    protocol.py   what may be asked and what is answered, as types; openapi.py the same as a document
    jobs.py       from a request to plans for `motif.sampling.answer`
    replies.py    from thoughts to answers, whole or streamed
    app.py        routes, keys, limits and errors
    limits.py     who may think at once, who waits, who is sent away
    upstream.py   a server elsewhere that continues prompts, in the place of the local model
    metrics.py    numbers for Prometheus
    command.py    opening a model, a socket and a server; ending them

Only `app.py` and `command.py` need the extra `serve`.
"""
