"""When does k > 1 pay? The signal-to-noise ratio of the round-1 gradient for shapes of equal cost, by simulation.

    python studies/sample_efficiency/when_k_pays.py [--questions 20000]

The toy model: a question's m first responses have true values V with mean 0.5 and variance ICC x 0.25 (a Beta
distribution), and scores s (one direction of the gradient of log pi) that correlate with V by 0.5. Each response gets
the mean of k Bernoulli(V) outcomes; the estimate of the gradient is the mean of advantage x score over the responses,
with the package's own `group_advantages`, the baseline leave-one-out and no standard deviation. Printed is its mean
over its standard deviation between questions. All shapes cost about what [8, 4, 1] costs: 72 responses a question, and
at equal lengths the same number of tokens. In a second table the calls of 24 are compared, as a smaller budget.
"""

import argparse

import numpy as np

from motif.config import CreditConfig
from motif.method.credit import group_advantages

ICCS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6)
SHAPES = {72: ((24, 1), (14, 2), (8, 4), (4, 8), (2, 16)), 24: ((8, 1), (5, 2), (3, 4))}
CREDIT = CreditConfig(baseline="leave_one_out", divide_by_std=False)
SCORE_CORRELATION, MEAN = 0.5, 0.5


def signal_to_noise(responses: int, trajectories: int, icc: float, questions: int, rng: np.random.Generator) -> float:
    """Mean over standard deviation of the gradient estimate of one question."""
    concentration = 1 / icc - 1  # Beta(a, b) with a + b = c has variance mean (1 - mean) / (c + 1)
    values_Q_M = rng.beta(MEAN * concentration, (1 - MEAN) * concentration, (questions, responses))
    standard = (values_Q_M - MEAN) / np.sqrt(icc * MEAN * (1 - MEAN))
    noise = rng.standard_normal(values_Q_M.shape)
    scores_Q_M = SCORE_CORRELATION * standard + np.sqrt(1 - SCORE_CORRELATION**2) * noise
    rewards_Q_M = rng.binomial(trajectories, values_Q_M) / trajectories
    advantages_Q_M = np.array([group_advantages(rewards.tolist(), CREDIT) for rewards in rewards_Q_M])
    estimates_Q = (advantages_Q_M * scores_Q_M).mean(axis=1)
    return float(estimates_Q.mean() / estimates_Q.std())


def main() -> None:
    """Print a table for each budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--questions", type=int, default=20_000)
    questions = parser.parse_args().questions
    for calls, shapes in SHAPES.items():
        print(f"about {calls} responses a question\n")
        print("| shape | responses | " + " | ".join(f"ICC {icc}" for icc in ICCS) + " |")
        print("|---|---|" + "---|" * len(ICCS))
        rng = np.random.default_rng(0)
        for m, k in shapes:
            cells = [f"{signal_to_noise(m, k, icc, questions, rng):.2f}" for icc in ICCS]
            print(f"| [{m}, {k}, 1] | {m + 2 * m * k} | " + " | ".join(cells) + " |")
        print()


if __name__ == "__main__":
    main()
