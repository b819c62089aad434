"""Train on a CSV file of your own: look at it, write a recipe for it, train, and see what was learnt.

    python examples/own_csv.py                      # writes a file first: 400 products, for the model that is shipped
    python examples/own_csv.py my.csv --model Qwen/Qwen2.5-0.5B-Instruct

Columns, separator, answers and grader are found out, as `motif init` does it; the recipe is a file to be read and
changed. On the command line the same is `motif init my.csv`, `motif train recipe.toml`.
"""

import argparse
import csv
import random
from pathlib import Path

import motif
from motif.training.scaffold import make


def write_products(file):
    """A file as a spreadsheet saves it: semicolons, and names of columns that nobody told motif."""
    rng = random.Random(0)
    pairs = rng.sample([(a, b) for a in range(10, 100) for b in range(10, 100)], 400)
    with file.open("w", newline="", encoding="utf-8-sig") as out:
        rows = csv.writer(out, delimiter=";")
        rows.writerow(["Aufgabe", "Lösung"])
        rows.writerows((f"What is {a} × {b}?", a * b) for a, b in pairs)


def main():
    """Train on the file that is named, or on one that is written here."""
    parser = argparse.ArgumentParser(description="Train on a CSV file.")
    parser.add_argument("file", nargs="?", type=Path, help="a CSV file with questions and answers")
    parser.add_argument("--model", default="embedded", help="the model to fine-tune")
    parser.add_argument("--out", type=Path, default=Path("runs/own-csv"), help="the run folder")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="a.b=c")
    args = parser.parse_args()

    file = args.file or Path("products.csv")
    if not args.file:
        write_products(file)
    recipe = Path(f"{file.stem}.toml")
    found = make(str(file), recipe, args.model)
    recipe.write_text(found.text, encoding="utf-8")
    print(f"{recipe}: questions in {found.look.question.name!r}, answers in {found.look.answer.name!r}")
    for sentence in found.unsure:
        print(f"- {sentence}")

    settings = ([] if args.file else ["train.steps=20"]) + args.settings
    result = motif.train(recipe, args.out, settings=settings)
    print(result)


if __name__ == "__main__":
    main()
