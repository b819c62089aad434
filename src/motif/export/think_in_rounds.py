"""Ask a model that thinks in rounds, with plain transformers: python think_in_rounds.py "What is 15 × 24?".

In each round the model sees the question and the note of the round before, reasons, and writes the next note. The last
note holds the answer. Decoding is greedy. Of a text in pieces, which follow the question, each round sees one.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

HERE = Path(__file__).parent  # the folder of the model's files
# The prompts, marks and limits that the model was trained with.
SCAFFOLD: dict[str, Any] = {}


def load() -> tuple[Any, Any]:
    """Load model and tokenizer."""
    return AutoModelForCausalLM.from_pretrained(HERE, dtype="auto"), AutoTokenizer.from_pretrained(HERE)


def fill(template: str, **values: Any) -> str:
    """The template with its {placeholders} filled in."""
    return re.sub(r"\{(\w+)\}", lambda match: str(values.get(match[1], match[0])), template)


def prompt(tokenizer: Any, question: str, notes: list[str], pieces: Sequence[str] = ()) -> list[int]:
    """Token ids of the round that follows these notes; `pieces`: what the question is about, one a round."""
    now, of = len(notes) + 1, len(pieces) or SCAFFOLD["rounds"]
    if pieces:
        question = fill(SCAFFOLD["piece"], question=question, piece=pieces[now - 1])
    text = fill(SCAFFOLD["question"], question=question, round=now, rounds=of)
    carried = list(enumerate(notes, start=1))[0 if SCAFFOLD["carry"] == "all" else -1 :]
    text += "".join(
        fill(SCAFFOLD["progress"], previous=n, note=quote(note), round=now, rounds=of) for n, note in carried
    )
    text += fill(SCAFFOLD["final" if now == of else "counter"], round=now, rounds=of)
    told = fill(SCAFFOLD["system"], rounds=of) if pieces else SCAFFOLD["system"]
    system = [{"role": "system", "content": told}] if told else []
    return encode(tokenizer, [*system, {"role": "user", "content": text}])


def encode(tokenizer: Any, messages: list[dict[str, Any]]) -> list[int]:
    """Token ids of a chat, in the form in which the chat template shows all of it."""
    chat = SCAFFOLD["chat"]
    joined = "\n\n".join(message["content"] for message in messages)
    if not chat:
        ids = list(tokenizer(joined + "\n\n")["input_ids"])
        while ids and ids[-1] in SCAFFOLD["end_ids"]:
            ids.pop()
        return ids
    if not chat["system"]:
        messages = [{"role": "user", "content": joined}]
    if chat["parts"]:
        messages = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]
    rendered = tokenizer.apply_chat_template(
        messages,
        chat_template=chat["clock"] + tokenizer.get_chat_template(),
        add_generation_prompt=True,
        tokenize=False,
        **chat["variables"],
    )
    return list(tokenizer(rendered, add_special_tokens=False)["input_ids"])


def quote(note: str) -> str:
    """The note as it stands between the prompt's quotation marks: between more of them where it holds some itself."""
    opening, closing = SCAFFOLD["quotes"]
    runs = [len(run) for mark in {opening, closing} - {""} for run in re.findall(f"{re.escape(mark)}+", note)]
    if not runs:
        return note
    before, after = (
        " " if found else "" for found in (note.startswith((opening, closing)), note.endswith((opening, closing)))
    )
    return opening * max(2, *runs) + before + note + after + closing * max(2, *runs)


def respond(model: Any, tokenizer: Any, ids: list[int], limit: int) -> str:
    """The model's response to this prompt, of at most `limit` tokens."""
    ends = SCAFFOLD["end_ids"]
    settings = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=ends, pad_token_id=ends[0])
    model.generation_config = settings
    inputs = torch.tensor([ids], device=model.device)
    with torch.no_grad():
        output = model.generate(inputs, attention_mask=torch.ones_like(inputs))
    sampled = output[0, len(ids) :].tolist()
    while sampled and sampled[-1] in ends:
        sampled.pop()
    return SCAFFOLD["opening"] + str(tokenizer.decode(sampled))  # the prompt holds the opening, an open think tag say


def spoken(text: str) -> tuple[bool, str]:
    """Whether the text has a note tag, and the relevant part: the last note, or what follows the reasoning."""
    if SCAFFOLD["carry"] == "tail":
        return False, text.rpartition(SCAFFOLD["think_tags"][1])[2] or text
    opening, closing = SCAFFOLD["note_tags"]
    end = text.rfind(closing)
    start = text.rfind(opening, 0, end) if end >= 0 else -1
    if start >= 0:
        return True, text[start + len(opening) : text.index(closing, start + len(opening))]
    if opening in text:
        return True, text[text.rfind(opening) + len(opening) :]
    return False, text.rpartition(SCAFFOLD["think_tags"][1])[2] or text


def note_of(tokenizer: Any, text: str) -> str:
    """The note to carry: without tags and special tokens, and cut to the limit."""
    tagged, note = (False, text) if SCAFFOLD["carry"] == "tail" else spoken(text)
    if not tagged and SCAFFOLD["untagged"] == "empty":
        return ""
    note = clean(note)
    ids = tokenizer(note, add_special_tokens=False)["input_ids"]
    count = len(ids)
    while not fits(tokenizer, note):
        count = min(SCAFFOLD["note_tokens"], count - 1)
        note = clean(tokenizer.decode(ids[:count] if tagged else ids[-count:]).strip("\ufffd")) if count else ""
    return note


def fits(tokenizer: Any, note: str) -> bool:
    """Whether a note is within its limit, with what quotes it in the prompt."""
    texts = {note, quote(note)}
    return all(len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= SCAFFOLD["note_tokens"] for text in texts)


def clean(note: str) -> str:
    """A note that cannot be taken for a part of the prompt (motif also removes forged announcements of rounds)."""
    for word in [*SCAFFOLD["think_tags"], *SCAFFOLD["note_tags"], *SCAFFOLD["special"]]:
        note = note.replace(word, "")
    return note.strip()


def answer_of(text: str, final: bool = True) -> str | None:
    """The answer in a response: between its marks, or else, in the final one, by the scaffold's fallback."""
    part = spoken(text)[1]
    opening, closing = SCAFFOLD["answer_marks"]
    for start in reversed([match.end() for match in re.finditer(re.escape(opening), part)]):
        depth = 0
        for at in range(start, len(part)):
            if part.startswith(closing, at) and depth == 0:
                return part[start:at].strip()
            if closing == "}":
                depth += (part[at] == "{") - (part[at] == "}")
    if not final:
        return None
    if SCAFFOLD["fallback"] == "last_number":
        numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", part)
        return numbers[-1] if numbers else None
    return (part.strip() or None) if SCAFFOLD["fallback"] == "text" else None


def think(question: str, pieces: Sequence[str] = ()) -> str | None:
    """Ask a question, about a text in pieces or about nothing else, print each round, and return the answer."""
    model, tokenizer = load()
    rounds = len(pieces) or SCAFFOLD["rounds"]
    notes: list[str] = []
    while True:
        now = len(notes) + 1
        limit = SCAFFOLD["tokens_first"] if now == 1 else SCAFFOLD["tokens_continue"]
        text = respond(model, tokenizer, prompt(tokenizer, question, notes, pieces), limit)
        print(f"round {now} of {rounds}\n  {text.strip()}")
        answer = answer_of(text, final=now == rounds)
        if now == rounds or (SCAFFOLD["may_finish"] and answer is not None):
            return answer
        notes.append(note_of(tokenizer, text))


if __name__ == "__main__":
    print("answer:", think(sys.argv[1], sys.argv[2:]))
