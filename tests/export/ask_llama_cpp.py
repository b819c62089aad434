"""Ask llama.cpp: the tokens of a text and of its greedy continuation, as JSON. Run by a Python that has llama.cpp.

python ask_llama_cpp.py FILE.gguf TEXT COUNT
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any


def by_llama_cpp_python(file: str, text: str, count: int) -> dict[str, Any]:
    from llama_cpp import Llama

    model = Llama(file, n_ctx=256, n_threads=1, verbose=False, logits_all=False)
    prompt = model.tokenize(text.encode(), add_bos=True, special=True)
    response = []
    for token in model.generate(prompt, top_k=1, temp=0.0, repeat_penalty=1.0):
        if token == model.token_eos() or len(response) == count:
            break
        response.append(token)
    return {"prompt": prompt, "response": response}


def by_xllamacpp(file: str, text: str, count: int) -> dict[str, Any]:
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.n_parallel, settings.warmup = file, 256, 1, False
    settings.cpuparams.n_threads = 1
    server = xllamacpp.Server(settings)

    def post(path: str, content: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(server.listening_address + path, json.dumps(content).encode(), headers)
        return json.load(urllib.request.urlopen(request, timeout=60))

    prompt = post("/tokenize", {"content": text, "add_special": True})["tokens"]
    wanted = {"prompt": prompt, "n_predict": count, "temperature": 0, "top_k": 1, "return_tokens": True}
    return {"prompt": prompt, "response": post("/completion", wanted)["tokens"]}


if __name__ == "__main__":
    file, text, count = sys.argv[1:]
    try:
        found = by_llama_cpp_python(file, text, int(count))
    except ImportError:
        found = by_xllamacpp(file, text, int(count))
    print(json.dumps(found))
