r"""The whole method on one screen: MOTIF (arXiv 2507.02851) with nothing but torch and transformers.

    python examples/motif_minimal.py

Left out, and found in the library: batching over questions and rounds, exact resume, note escaping, graders for real
mathematics, LoRA, other credit rules and losses, evaluation with intervals. tests/docs/test_minimal.py checks that
rewards, advantages and gradients are the library's.
"""

import random
import re
from statistics import fmean, stdev

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from motif.demo import MODELS

M, K, N, WINDOW = 8, 4, 3, 24  # responses per question, trajectories per response, rounds, tokens per round


def prompt(tokenizer, question, note, t):
    """What the model sees in round t: the question, the latest note, and which round it is. The rest is forgotten."""
    text = (
        question + (f'\nNote {t - 1}: "{note}"' if t > 1 else "") + f"\nRound {t}/{N}" + (", final." if t == N else ".")
    )
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer(chat, add_special_tokens=False, return_tensors="pt").input_ids


def sample(model, tokenizer, prompt_ids, count):
    """`count` responses to one prompt, as token ids with the end token."""
    mask = torch.ones_like(prompt_ids)
    out = model.generate(
        prompt_ids, attention_mask=mask, do_sample=True, num_return_sequences=count, max_new_tokens=WINDOW
    )
    rows = out[:, prompt_ids.shape[1] :].tolist()
    end = tokenizer.eos_token_id
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def read(tokenizer, response):
    """The note of a response, its boxed answer, and whether its tags are well formed."""
    text = tokenizer.decode(response, skip_special_tokens=True)
    notes = re.findall(r"<note>(.*?)</note>", text, re.DOTALL)
    note = notes[-1].strip().replace('"', "'") if notes else text
    boxes = re.findall(r"\\boxed\{([^{}]*)\}", note)
    return note, boxes[-1] if boxes else None, re.fullmatch(r"<think>[^<]*</think><note>[^<]+</note>", text) is not None


def outcome(model, tokenizer, question, gold, note):
    """Continue one note through rounds 2..n and grade the last response."""
    answer = None
    for t in range(2, N + 1):
        [response] = sample(model, tokenizer, prompt(tokenizer, question, note, t), 1)
        note, answer, _ = read(tokenizer, response)
    return float(answer == gold)


def reward(model, tokenizer, question, gold, response):
    """r_i = r_i^f + r_i^a: form of the response itself, plus the mean outcome of k trajectories that go on from it."""
    note, _, well_formed = read(tokenizer, response)
    return float(well_formed) + fmean(outcome(model, tokenizer, question, gold, note) for _ in range(K))


def advantages(rewards):
    """A_i = (r_i - mean) / std over the m responses to one question."""
    return [(r - fmean(rewards)) / (stdev(rewards) + 1e-4) for r in rewards]


def loss(model, prompt_ids, responses, advantages_M):
    """The mean over responses of -A_i times the mean over tokens of log pi; only round 1 is trained.

    With one update per sample the ratio pi / pi_old is 1 and its clip never binds; its gradient is that of log pi.
    """
    total = torch.zeros(())
    for response, advantage in zip(responses, advantages_M, strict=True):
        ids = torch.cat([prompt_ids, torch.tensor([response])], dim=1)
        logprobs = model(ids).logits[0, prompt_ids.shape[1] - 1 : -1].log_softmax(-1)
        total = total - advantage * logprobs.gather(-1, torch.tensor(response)[:, None]).mean()
    return total / len(responses)


def main(steps=20, questions_per_step=4):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(MODELS["embedded"])
    model = AutoModelForCausalLM.from_pretrained(MODELS["embedded"], dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-4, weight_decay=0.0)
    for step in range(1, steps + 1):
        rewards = []
        for _ in range(questions_per_step):
            a, b = random.randint(10, 99), random.randint(10, 99)
            question, gold = f"What is {a} × {b}?", str(a * b)
            first = prompt(tokenizer, question, None, 1)
            responses = sample(model, tokenizer, first, M)
            rewards_M = [reward(model, tokenizer, question, gold, response) for response in responses]
            (loss(model, first, responses, advantages(rewards_M)) / questions_per_step).backward()
            rewards += rewards_M
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step:2d}  mean reward {fmean(rewards):.2f}", flush=True)


if __name__ == "__main__":
    main()
