"""Read texts that no window holds: they come in pieces, one a round, and only a short note is carried on.

    python examples/long_text.py           # a minute or two of one CPU core, with the reader that is shipped

Each text sets six accounts again and again; asked is what one of them holds in the end. Trained are texts of one to
four pieces; then the same model reads texts of twelve. docs/long-texts.md has the same with words and a real model.
"""

import argparse
import random

import motif


def row(rng, pieces):
    """A question, its text in pieces of two entries, and the answer: the last value of the account asked for."""
    entries = [(rng.choice("ABCDEF"), rng.randint(1, 9)) for _ in range(2 * pieces)]
    asked = rng.choice(entries)[0]
    answer = [value for account, value in entries if account == asked][-1]
    texts = [f"{account}={value}" for account, value in entries]
    return {
        "question": f"{asked}?",
        "pieces": [" ".join(texts[start : start + 2]) for start in range(0, len(texts), 2)],
        "answer": answer,
    }


def main():
    """Train on short texts, and read long ones."""
    parser = argparse.ArgumentParser(description="Train a reader of texts in pieces.")
    parser.add_argument("--out", default="runs/long-text", help="the run folder")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--questions", type=int, default=100, help="held-out texts of each kind")
    args = parser.parse_args()

    rng = random.Random(0)
    short = [row(rng, rng.randint(1, 4)) for _ in range(800 + args.questions)]
    long = [row(rng, 12) for _ in range(args.questions)]
    result = motif.train(
        "read",
        args.out,
        train_dataset=short[args.questions :],
        eval_dataset=short[: args.questions],
        reward="numeric",
        steps=args.steps,
        settings={"data.pieces_column": "pieces", "data.skip_bad": True, "eval.questions": args.questions},
    )
    print(result)
    [accuracy] = motif.evaluate(result, long, settings={"data.pieces_column": "pieces"}).values()
    print(f"texts of 12 pieces, three times as long as any that was trained on: {accuracy.accuracy:.0%} right")


if __name__ == "__main__":
    main()
