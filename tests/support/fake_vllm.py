"""A vLLM server made of this package's own parts, for tests: the same API, real adapters, and failures on demand.

What one has answered is not computed again where it, or another of the same model, is asked the same, alone or with
others. So a request's responses depend on its prompt, seeds and adapter alone, and a run through any number of these
servers, failing in any way, must end like an undisturbed one, bit for bit.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from motif.config import ModelConfig
from motif.models.policy import Policy
from motif.sampling.base import Completion, Request
from motif.sampling.concurrency import complete
from motif.sampling.local.batch import LocalSampler

ANSWERS: dict[str, dict[Any, Completion]] = {}
"""By model: what was answered to a request, by the adapter's checksum, the request and the key."""


class FakeVLLM:
    """Serves a model on a free port of this machine.

    Attributes:
        misbehave: called with the count of completion requests so far (from 1) and the request; what it returns is done
            instead: None (answer well), a status code, "garbage", "cut", "short", "abort", "hang", "other model",
            "lost token" or "die".
        calls: how often each path was asked for. loaded: adapters by name; history: all that were ever loaded.
        served: responses sent to their end. bodies: all completion requests. key: the API key asked for, if any.
        processed: tell log-probabilities at the sampling temperature. off: nats by which they are wrong. ignores: take
            adapters, and sample without them.
        turns: requests to sleep and to wake; who sleeps does not answer.
    """

    def __init__(self, model: ModelConfig):
        self.policy = Policy(model)
        self.policy.load_state({name: torch.zeros_like(value) for name, value in self.policy.state().items()})
        self.empty = self.policy.state()
        self.sampler = LocalSampler(self.policy)
        self.loaded: dict[str, dict[str, torch.Tensor]] = {}
        self.lock = threading.Lock()
        self.answers = ANSWERS.setdefault(model.model_dump_json(), {})
        self.port, self.died = 0, True
        self.ended = threading.Event()  # until then those that hang do
        self.reset()

    def reset(self) -> None:
        """Well-behaved and running, as if nothing had been."""
        self.ended.set()
        self.ended = threading.Event()
        self.misbehave: Callable[[int, dict[str, Any]], Any] = lambda count, body: None
        self.calls: Counter[str] = Counter()
        self.history: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.served = self.waiting = self.most_waiting = 0
        self.key, self.processed, self.off, self.ignores = "", True, 0.0, False
        self.turns: list[str] = []
        if self.died:
            self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, or start again: on the same port, without any adapter."""
        self.loaded.clear()
        self.died = False
        self.http = _Server(("127.0.0.1", self.port), type("Handler", (_Handler,), {"fake": self}))
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """End at once: connections break, and new ones are refused."""
        self.died = True
        self.ended.set()
        self.http.shutdown()
        self.http.server_close()

    def sample(self, body: dict[str, Any]) -> list[Completion]:
        """What this server answers to a request."""
        torch.set_num_threads(1)  # of this thread: with more, the last bits are a matter of chance
        keys = [body["seed"] + place for place in range(body["n"])]
        rest = body["max_tokens"], body["temperature"], body["top_p"]
        with self.lock:
            state = self.empty if self.ignores else self.loaded.get(body["model"], self.empty)
            asked = zlib.crc32(b"".join(value.numpy().tobytes() for value in state.values())), (*body["prompt"],), rest
            missing = [key for key in keys if (asked, key) not in self.answers]
            if missing:
                self.policy.load_state(state)
                for done in complete(self.sampler, [Request(body["prompt"], missing, *rest)]):
                    self.answers[asked, missing[done.index]] = done
            return [self.answers[asked, key] for key in keys]

    def load(self, name: str, path: str) -> tuple[int, str]:
        """Load an adapter in PEFT format."""
        if name in self.loaded:
            return 400, f"The lora adapter '{name}' has already been loaded."
        file = Path(path) / "adapter_model.safetensors"
        if not file.is_file():
            return 404, f"Loading lora {name} failed: No adapter found for {path}"
        tensors = load_file(file)
        with self.lock:
            self.loaded[name] = {key: tensors[key.replace(".default", "")] for key in self.empty}
        self.history.append(name)
        return 200, f"Success: LoRA adapter '{name}' added successfully."


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    fake: FakeVLLM
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self._ready():
            cards = [{"id": "base", "parent": None, "max_model_len": self.fake.policy.max_length}]
            cards += [{"id": name, "parent": "base", "max_model_len": None} for name in self.fake.loaded]
            self._json(200, {"data": cards})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if not self._ready():
            return
        if self.path == "/v1/completions":
            self._complete(body)
        elif self.path == "/v1/load_lora_adapter":
            status, text = self.fake.load(body["lora_name"], body["lora_path"])
            self._json(status, {"error": {"message": text}})
        elif self.path in ("/sleep?level=1", "/wake_up"):
            self.fake.turns.append(self.path)
            self._json(200, {})
        elif self.path == "/v1/unload_lora_adapter":
            there = self.fake.loaded.pop(body["lora_name"], None)
            self._json(200 if there else 404, {})
        else:
            self._json(404, {"detail": "Not Found"})

    def _ready(self) -> bool:
        if self.fake.died:
            self.close_connection = True
            return False
        self.fake.calls[self.path] += 1
        if self.fake.key and self.headers.get("Authorization") != f"Bearer {self.fake.key}":
            self._json(401, {"error": "Unauthorized"})
            return False
        return True

    def _complete(self, body: dict[str, Any]) -> None:
        self.fake.bodies.append(body)
        body.setdefault("n", 1)
        if self.fake.turns[-1:] == ["/sleep?level=1"]:
            return self._json(400, {"error": {"message": "asleep"}})
        deed = self.fake.misbehave(self.fake.calls[self.path], body)
        if deed == "die":
            threading.Thread(target=self.fake.stop).start()
            self.fake.died = True
        if deed == "hang":
            self.fake.ended.wait()
            return None
        if isinstance(deed, int):
            return self._json(deed, {"error": {"message": "out of order"}})
        if body["temperature"] > 2:
            return self._json(400, {"error": {"message": "temperature must be in [0, 2]"}})
        if body["model"] != "base" and body["model"] not in self.fake.loaded:
            return self._json(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        self.fake.waiting += 1
        self.fake.most_waiting = max(self.fake.most_waiting, self.fake.waiting)
        try:
            self._stream(body, deed)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.fake.waiting -= 1

    def _stream(self, body: dict[str, Any], deed: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for place, done in enumerate(self.fake.sample(body)):
            if (deed in ("cut", "die") and place == body["n"] - 1) or (self.fake.died and deed is None):
                self.close_connection = True  # without the chunk that ends the answer
                self.connection.close()
                return
            if deed == "short" and place == body["n"] - 1:
                continue
            self._tell(body, place, done, deed)
            self.fake.served += 1
        if body.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(done.token_ids)}
            self._chunk(f"data: {json.dumps({'model': body['model'], 'choices': [], 'usage': usage})}\n\n")
        self._chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _tell(self, body: dict[str, Any], place: int, done: Completion, deed: Any) -> None:
        logprobs = [value - self.fake.off for value in done.logprobs]
        if not self.fake.processed and body["temperature"] not in (0, 1):
            with torch.no_grad():
                raw, _ = self.fake.policy.token_logprobs([body["prompt"]], [done.token_ids], [1.0])
            logprobs = raw.tolist()
        if deed == "lost token":
            logprobs = logprobs[:-1]
        model = "another" if deed == "other model" else body["model"]
        reason = "length" if done.truncated else "stop"
        cut = max(1, len(done.token_ids) // 2)  # in two events, as a server with another interval would
        for part, ends in ((slice(0, cut), None), (slice(cut, None), "abort" if deed == "abort" else reason)):
            choice = {
                "index": place,
                "text": self.fake.policy.tokenizer.decode(done.token_ids[part], skip_special_tokens=True),
                "token_ids": done.token_ids[part] or None,
                "logprobs": {"token_logprobs": logprobs[part]} if done.token_ids[part] else None,
                "finish_reason": ends,
            }
            text = json.dumps({"model": model, "choices": [choice]})
            self._chunk(f"data: {text[:20] if deed == 'garbage' else text}\n\n")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
