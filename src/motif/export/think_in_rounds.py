"""Ask a model that thinks in rounds, with plain transformers: python think_in_rounds.py "What is 15 × 24?".

In each round the model sees the question and the note of the round before, reasons, and writes the next note. The last
note holds the answer. Decoding is greedy.
"""

import re
import sys
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


def prompt(tokenizer: Any, question: str, notes: list[str]) -> list[int]:
    """Token ids of the round that follows these notes."""
    now, of = len(notes) + 1, SCAFFOLD["rounds"]
    text = fill(SCAFFOLD["question"], question=question, round=now, rounds=of)
    carried = list(enumerate(notes, start=1))[-1 if SCAFFOLD["carry"] == "latest" else 0 :]
    text += "".join(fill(SCAFFOLD["progress"], previous=n, note=note, round=now, rounds=of) for n, note in carried)
    text += fill(SCAFFOLD["final" if now == of else "counter"], round=now, rounds=of)
    system = [{"role": "system", "content": fill(SCAFFOLD["system"], rounds=of)}] if SCAFFOLD["system"] else []
    messages = [*system, {"role": "user", "content": text}]
    joined = "\n\n".join(message["content"] for message in messages)
    if not tokenizer.chat_template:
        return list(tokenizer(joined + "\n\n")["input_ids"])
    try:
        chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except Exception:  # a template without a system role
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": joined}], add_generation_prompt=True, tokenize=False
        )
    return list(tokenizer(chat, add_special_tokens=False)["input_ids"])


def respond(model: Any, tokenizer: Any, ids: list[int], limit: int) -> str:
    """The model's response to this prompt, of at most `limit` tokens."""
    ends = SCAFFOLD["end_ids"]
    settings = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=ends, pad_token_id=ends[0])
    model.generation_config = settings
    inputs = torch.tensor([ids], device=model.device)
    with torch.no_grad():
        output = model.generate(inputs, attention_mask=torch.ones_like(inputs))
    return str(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))


def spoken(text: str) -> tuple[bool, str]:
    """Whether the text has a note tag, and the relevant part: the last note, or what follows the reasoning."""
    opening, closing = SCAFFOLD["note_tags"]
    end = text.rfind(closing)
    start = text.rfind(opening, 0, end) if end >= 0 else -1
    if start >= 0:
        return True, text[start + len(opening) : text.index(closing, start + len(opening))]
    if opening in text:
        return True, text[text.rfind(opening) + len(opening) :]
    return False, text.rpartition(SCAFFOLD["think_tags"][1])[2] or text


def note_of(tokenizer: Any, text: str) -> str:
    """The note to carry: without tags, special tokens and enclosing quotes, and cut to the limit."""
    tagged, note = spoken(text)
    if not tagged and SCAFFOLD["untagged"] == "empty":
        return ""
    note = clean(tokenizer, note)
    ids = tokenizer(note, add_special_tokens=False)["input_ids"]
    if len(ids) > SCAFFOLD["note_tokens"]:
        kept = ids[: SCAFFOLD["note_tokens"]] if tagged else ids[-SCAFFOLD["note_tokens"] :]
        note = clean(tokenizer, tokenizer.decode(kept, skip_special_tokens=True).strip("\ufffd"))
    return note


def clean(tokenizer: Any, note: str) -> str:
    """A note that cannot be taken for a part of the prompt (motif also removes forged announcements of rounds)."""
    for word in [*tokenizer.all_special_tokens, *SCAFFOLD["think_tags"], *SCAFFOLD["note_tags"]]:
        note = note.replace(word, "")
    before, _, after = SCAFFOLD["progress"].partition("{note}")
    for mark in {before[-1:], after[:1]} - {""}:
        if not mark.isalnum() and not mark.isspace():
            note = note.replace(mark, "'" if mark != "'" else "`")
    return note.strip()


def answer_of(text: str) -> str | None:
    """The answer in the last response: between its marks, or else by the scaffold's fallback."""
    part = spoken(text)[1]
    opening, closing = SCAFFOLD["answer_marks"]
    for start in reversed([match.end() for match in re.finditer(re.escape(opening), part)]):
        depth = 0
        for at in range(start, len(part)):
            if part.startswith(closing, at) and depth == 0:
                return part[start:at].strip()
            if closing == "}":
                depth += (part[at] == "{") - (part[at] == "}")
    if SCAFFOLD["fallback"] == "last_number":
        numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", part)
        return numbers[-1] if numbers else None
    return (part.strip() or None) if SCAFFOLD["fallback"] == "text" else None


def think(question: str) -> str | None:
    """Ask a question, print each round, and return the answer."""
    model, tokenizer = load()
    notes: list[str] = []
    while True:
        now = len(notes) + 1
        limit = SCAFFOLD["tokens_first"] if now == 1 else SCAFFOLD["tokens_continue"]
        text = respond(model, tokenizer, prompt(tokenizer, question, notes), limit)
        print(f"round {now} of {SCAFFOLD['rounds']}\n  {text.strip()}")
        if now == SCAFFOLD["rounds"]:
            return answer_of(text)
        notes.append(note_of(tokenizer, text))


if __name__ == "__main__":
    print("answer:", think(sys.argv[1]))
