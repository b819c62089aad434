"""A grader that tosses a coin, in a file of its own so that its workers load nothing else."""

import hashlib


def grade(gold: str, prediction: str) -> bool:
    """Half of all answers are right, so that there is something to train on."""
    bit = hashlib.blake2b(prediction.encode()).digest()[0] % 2
    return prediction not in ("", "0", "0.0") and (prediction == gold or bit == 0)
