"""Train against an LLM judge behind any server of OpenAI's API: llama.cpp, Ollama, vLLM, `motif serve`, or a provider.

    python examples/llm_judge.py --url http://localhost:11434/v1 --model qwen3:8b     # the key from $OPENAI_API_KEY
    python examples/llm_judge.py --stand-in      # without a model: a small server here that knows how to multiply

The judge is asked while other answers are sampled. What it said is kept in a file, so that equal answers are judged
once, also after the run was resumed. A judge that cannot be reached costs its answers (they are ungraded, and counted),
not the run. A judge can be talked into things: read some trees (`motif view`) before you believe a rising reward.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2

import motif
from motif.grading import Grade

PROMPT = """Question: {question}
Reference answer: {gold}
Given answer: {answer}

How good is the given answer, from 0 (wrong) to 10 (right)? Reply with the number only."""


class Judge:
    """A reward with state: a client, what has been judged, and limits. Its coroutines share one event loop."""

    def __init__(self, url, model, cache, at_once=8, tries=3, seconds=30):
        self.url, self.model, self.cache, self.tries = url.rstrip("/"), model, Path(cache), tries
        self.client = httpx2.AsyncClient(
            timeout=seconds, headers={"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
        )
        self.limit = asyncio.Semaphore(at_once)
        self.asked = 0
        self.known = {}
        if self.cache.is_file():
            for line in self.cache.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError):  # half a line of a run that was killed
                    record = json.loads(line)
                    self.known[record["key"]] = record["score"]

    async def __call__(self, question, gold, answer):
        prompt = PROMPT.format(question=question, gold=gold, answer=answer[:500])
        key = hashlib.sha256(f"{self.model}\n{prompt}".encode()).hexdigest()
        if key not in self.known:
            async with self.limit:
                score, problem = await self.ask(prompt)
            if score is None:
                return Grade("ungraded", problem)
            self.known[key] = score
            with self.cache.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "score": score}) + "\n")
        return self.known[key]

    async def ask(self, prompt):
        """The judge's score from 0 to 1, or None and why there is none."""
        problem = ""
        for attempt in range(self.tries):
            self.asked += 1
            try:
                reply = await self.client.post(
                    f"{self.url}/chat/completions",
                    json={
                        "model": self.model,
                        "messages": [{"role": "user", "content": prompt}],
                        "temperature": 0,
                        "max_tokens": 8,
                    },
                )
                reply.raise_for_status()
                text = reply.json()["choices"][0]["message"]["content"]
            except (httpx2.HTTPError, ValueError, KeyError, IndexError) as error:
                problem = f"the judge cannot be asked: {type(error).__name__}: {error}"
            else:
                if (number := re.search(r"\d+", text)) and int(number[0]) <= 10:
                    return int(number[0]) / 10, ""
                problem = f"the judge said {text[:60]!r}"
            await asyncio.sleep(2**attempt / 4)
        return None, problem


def stand_in():
    """The address of a judge that is no model: full marks for the reference answer, 5 for its last digit."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
            gold, answer = (re.search(f"{name} answer: (.*)", asked)[1].strip() for name in ("Reference", "Given"))
            score = 10 if answer == gold else 5 if answer[-1:] == gold[-1:] else 0
            body = json.dumps({"choices": [{"message": {"content": str(score)}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train against an LLM judge.")
    parser.add_argument("--url", default="http://localhost:11434/v1", help="the judge's server")
    parser.add_argument("--model", default="qwen3:8b", help="the judge")
    parser.add_argument("--stand-in", action="store_true", help="judge by a small server without a model")
    parser.add_argument("--out", default="runs/judged", help="the run folder")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="a.b=c", help="change the recipe"
    )
    args = parser.parse_args()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    judge = Judge(stand_in() if args.stand_in else args.url, args.model, Path(args.out) / "judged.jsonl")
    settings = ["eval.questions=50", *args.settings]
    result = motif.train("demo", args.out, reward=judge, steps=args.steps, resume=args.resume, settings=settings)
    print(result)
    print(f"the judge was asked {judge.asked} times, and {len(judge.known)} judgements are kept in {judge.cache}")
