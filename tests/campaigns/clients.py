"""The kinds of clients that load a server, and what each holds the server to."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wire import CHAT, TEXT, Answer, Broken, Pace, request

from motif.method.rounds import Rounds

TOO_LONG = 2**20 + 1
"""Bytes, one more than a server takes unless told otherwise."""


READS = Pace()
"""As fast as it comes."""

LONGEST_REST = 0.2
"""Seconds that a slow reader sleeps at most before it reads on."""


class Wrong(Exception):
    """An answer that is not what was asked for."""


class OutOfTime(Exception):
    """A stream that the server has ended for want of time, and says so."""


@dataclass(frozen=True)
class Turn:
    """One request of a client: what it sends, how it reads, and which statuses are right beside a 429."""

    kind: str
    data: bytes
    body: Any = None
    pace: Pace = READS
    statuses: tuple[int, ...] = (200,)
    known: int | None = None
    """Which of the fixed questions it asks; the answer must be the unloaded one."""


def question(dice: random.Random) -> str:
    """A product of two numbers of two digits, as the embedded model knows them."""
    return f"What is {dice.randint(10, 99)} × {dice.randint(10, 99)}?"


def chat(dice: random.Random, stream: bool = True, **more: Any) -> dict[str, Any]:
    """A chat about one question, streamed with its usage unless asked otherwise."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": question(dice)}], "temperature": 1.0, **more}
    return body | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})


def fixed(index: int) -> dict[str, Any]:
    """One of the questions whose answers are known: greedy or drawn with a seed, one answer or two, streamed or not."""
    more: dict[str, Any] = {"seed": index, "rounds": 1 + index % 5, "temperature": float(index % 2)}
    return chat(random.Random(index), stream=index % 4 < 2, **more | ({"n": 2} if index % 4 == 3 else {}))


FIXED = 16
"""How many such questions there are."""


class Clients:
    """Makes the turns of all kinds of clients.

    Args:
        key: the server's. dice: for everything that is drawn.
    """

    def __init__(self, key: str, dice: random.Random):
        self.key, self.dice = key, dice

    def streaming(self) -> list[tuple[float, Callable[[], Turn]]]:
        """Kinds that stream, with their shares."""
        return [
            (0.46, self.stream),
            (0.10, self.pair),
            (0.16, self.slow),
            (0.12, self.leaver),
            (0.08, self.texts),
            (0.08, self.seeded),
        ]

    def stream(self) -> Turn:
        """A streamed chat of one to six rounds."""
        return self._asks("stream", chat(self.dice, rounds=self.dice.randint(1, 6)))

    def pair(self) -> Turn:
        """Two answers to one question, streamed."""
        return self._asks("n = 2", chat(self.dice, n=2))

    def slow(self) -> Turn:
        """Reads a little, sleeps, reads a little; long answers, so that more comes than the system keeps for it."""
        body = chat(self.dice, rounds=self.dice.choice([3, 8, 32]))
        return self._asks("slow reader", body, pace=Pace(1024, self.dice.uniform(0.02, LONGEST_REST)))

    def leaver(self) -> Turn:
        """Goes away in mid-stream, or before it has begun."""
        body = chat(self.dice, rounds=self.dice.randint(3, 12), n=self.dice.choice([1, 1, 2]))
        return self._asks("leaves", body, pace=Pace(leave_after=int(10 ** self.dice.uniform(0, 4.3))))

    def texts(self) -> Turn:
        """Completions of one to three prompts, streamed or whole."""
        body = {"prompt": [question(self.dice) for _ in range(self.dice.randint(1, 3))], "temperature": 0.7}
        stream = {"stream": True, "stream_options": {"include_usage": True}} if self.dice.random() < 0.7 else {}
        return self._asks("completions", body | stream, path=TEXT)

    def seeded(self) -> Turn:
        """A question whose answer is known."""
        index = self.dice.randrange(FIXED)
        return self._asks("seeded", fixed(index), known=index)

    def whole(self) -> Turn:
        """A chat that is not streamed."""
        body = chat(self.dice, stream=False, rounds=self.dice.randint(1, 4), answer_only=self.dice.random() < 0.3)
        return self._asks("whole", body)

    def bad(self) -> Turn:
        """A request that must be refused, with the status that says why."""
        body = chat(self.dice)
        data = json.dumps(body).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer {self.key}\r\n"
        declared = "Content-Type: application/json\r\n"
        kinds: list[tuple[str, bytes, int]] = [
            ("wrong key", request(CHAT, body, "wrong"), 401),
            ("wrong key, and a long body", request(CHAT, b"x" * TOO_LONG, "wrong"), 401),
            ("no JSON", request(CHAT, b"{" + self.dice.randbytes(40), self.key), 400),
            ("half a JSON", request(CHAT, data[: len(data) // 2], self.key), 400),
            ("another type", request(CHAT, data, self.key, "Content-Type: text/plain\r\n"), 415),
            ("unknown parameter", request(CHAT, body | {"surprise": 1}, self.key), 400),
            ("bad value", request(CHAT, body | {"rounds": 10**9}, self.key), 400),
            ("no question", request(CHAT, {"messages": []}, self.key), 400),
            ("a question beyond the window", request(CHAT, chat(self.dice) | _long(9_000), self.key), 400),
            ("too long, and says so", request(CHAT, b"[" * TOO_LONG, self.key), 413),
            ("too long, without a length", _chunked(head + declared, TOO_LONG), 413),
            ("no such path", request("/v1/nothing", body, self.key), 404),
            ("no such model", request(CHAT, body | {"model": "other"}, self.key), 404),
            ("no HTTP", self.dice.randbytes(60) + b"\r\n\r\n", 400),
            ("huge header", (head + "X: " + "x" * TOO_LONG + "\r\n\r\n").encode(), 400),
        ]
        kind, sent, status = self.dice.choice(kinds)
        return Turn(f"bad: {kind}", sent, statuses=(status,))

    def _asks(self, kind: str, body: Any, path: str = CHAT, pace: Pace = READS, known: int | None = None) -> Turn:
        return Turn(kind, request(path, body, self.key), body, pace, known=known)


def _long(characters: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "7" * characters}]}


def _chunked(head: str, size: int) -> bytes:
    part = b"x" * 2**14
    chunk = b"%x\r\n%s\r\n" % (len(part), part)
    return (head + "Transfer-Encoding: chunked\r\n\r\n").encode() + chunk * (size // len(part) + 1) + b"0\r\n\r\n"


# -- what came back --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """An answer as it was read: per choice its rounds, its content and its reasoning, and the usage."""

    rounds: list[list[dict[str, Any]]]
    contents: list[str]
    reasoning: list[str]
    usage: dict[str, Any]

    def core(self) -> Any:
        """What a seed decides."""
        return [self.rounds, self.contents, self.reasoning, self.usage]


def told(answer: Answer, streamed: bool) -> Told:
    """The content of an answer with status 200.

    Raises:
        Wrong: it is not of the API's form. Broken: a stream without its end. OutOfTime: a stream cut by the limit.
    """
    last = answer.body.rpartition(b"\n\ndata: ")[2]
    try:
        if streamed and last.startswith(b'{"error":') and json.loads(last)["error"]["code"] == "timeout":
            raise OutOfTime
        return _streamed(answer.events()) if streamed else _whole(answer.json())
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Wrong(f"no answer: {type(error).__name__} {error}: {answer.body[:300]!r}") from error


def _whole(found: dict[str, Any]) -> Told:
    choices = found["choices"]
    messages = [choice.get("message") or {"content": choice["text"], "reasoning_content": ""} for choice in choices]
    rounds = [choice["motif"]["rounds"] for choice in choices]
    said, thought = ([message[name] for message in messages] for name in ("content", "reasoning_content"))
    return Told(rounds, said, thought, found["usage"])


def _streamed(events: list[dict[str, Any]]) -> Told:
    if "error" in events[-1]:
        raise Wrong(f"an error in a stream that ended well: {events[-1]}")
    *events, last = events
    count = 1 + max(event["choices"][0]["index"] for event in events)
    rounds: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    contents, reasoning, finished = [""] * count, [""] * count, [0] * count
    for event in events:
        choice = event["choices"][0]
        index, said, delta = choice["index"], choice.get("motif", {}), choice.get("delta", {})
        contents[index] += delta.get("content", "") + choice.get("text", "")
        reasoning[index] += delta.get("reasoning_content", "")
        finished[index] += choice["finish_reason"] is not None
        if said.get("event") in ("note", "end"):
            rounds[index].append({name: value for name, value in said.items() if name not in ("event", "of")})
    if finished != [1] * count:
        raise Wrong(f"choices ended so many times: {finished}")
    return Told(rounds, contents, reasoning, last["usage"])


def check_usage(found: Told) -> None:
    """The usage must be the sum over the rounds of all choices.

    Raises:
        Wrong: it is not.
    """
    sums = {
        name: sum(one[name] for rounds in found.rounds for one in rounds)
        for name in ("prompt_tokens", "completion_tokens")
    }
    sums["total_tokens"] = sums["prompt_tokens"] + sums["completion_tokens"]
    last = sum(rounds[-1]["completion_tokens"] for rounds in found.rounds)
    right = sums | {"completion_tokens_details": {"reasoning_tokens": sums["completion_tokens"] - last}}
    if found.usage != right:
        raise Wrong(f"usage {found.usage}, and the rounds sum to {right}")


def check_tokens(found: Told, body: dict[str, Any], scaffold: Rounds, own_rounds: int) -> int:
    """Tokenise prompts and responses again and compare their counts; returns how many rounds were checked.

    A response's text is its tokens without the end token, which counts too; one that holds another special token does
    not show it, so a response may have more tokens than its text.

    Raises:
        Wrong: a count is another.
    """
    checked, count = 0, body.get("rounds", own_rounds)
    texts = [body["messages"][0]["content"]] if "messages" in body else body["prompt"]
    for index, rounds in enumerate(found.rounds):
        notes: list[str] = []
        question_ = texts[index * len(texts) // len(found.rounds)]
        pieces = _responses(found.reasoning[index], rounds, count)
        for number, one in enumerate(rounds):
            prompt = len(scaffold.prompt(question_, notes, count))
            if one["prompt_tokens"] != prompt:
                raise Wrong(f"{one['prompt_tokens']} prompt tokens, and there are {prompt}")
            if pieces is not None:
                words = len(scaffold.tokenizer(pieces[number], add_special_tokens=False)["input_ids"])
                if one["completion_tokens"] - words not in (0, 1) and one["well_formed"]:
                    raise Wrong(f"{one['completion_tokens']} new tokens, and the text has {words}")
            notes.append(one["note"])
            checked += 1
    return checked


def _responses(reasoning: str, rounds: list[dict[str, Any]], count: int) -> list[str] | None:
    """The response of each round; None: they are not told (completions)."""
    if not reasoning:
        return None
    pieces = []
    for number, one in enumerate(rounds, start=1):
        ending = "\n" if number == count else f"\n[note to round {number + 1}] {one['note']}\n\n"
        reasoning = reasoning.removeprefix(f"[round {number} of {count}]\n")
        following = f"{ending}[round {number + 1} of {count}]\n" if number < len(rounds) else ending
        piece, found, rest = reasoning.partition(following)
        if not found:
            raise Wrong(f"round {number} does not end as told: {reasoning[:200]!r}")
        pieces.append(piece)
        reasoning = f"[round {number + 1} of {count}]\n{rest}" if number < len(rounds) else rest
    return pieces


__all__ = ["FIXED", "Broken", "Clients", "Told", "Turn", "Wrong", "check_tokens", "check_usage", "fixed", "told"]
