"""The ledger: what a run has spent on training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from motif.errors import RunFolderError


@dataclass
class Ledger:
    """What a run has spent so far on training; evaluation and the probe are not in it.

    questions: drawn, repeats included; distinct_questions: of these, with different texts. dropped_questions: of these,
    not trained on because all their groups were dead; None without `rollout.refill`. generated_tokens: over all
    rounds and branches. prefill_tokens: prompt tokens run through the model; prefill_saved: those that were not,
    because responses share prompts or beginnings of them. trained_tokens: response tokens in the loss, once per pass.
    flops: 2P per generated or prefilled token and 6P per token of an update pass (4P with a frozen base, which needs no
    weight gradients), for the P parameters in a token's products: without tables that are only looked up, and of
    experts those that it passes; attention is left out. seconds: wall clock of the steps, of which sampling,
    grading (what was left of it when the last response had been sampled) and training (credit and update).
    """

    questions: int = 0
    distinct_questions: int = 0
    updates: int = 0
    generated_tokens: int = 0
    prefill_tokens: int = 0
    prefill_saved: int = 0
    trained_tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    sampling_seconds: float = 0.0
    grading_seconds: float = 0.0
    training_seconds: float = 0.0
    dropped_questions: int | None = None

    def to_dict(self, prefix: str = "") -> dict[str, float]:
        """The fields by name, with an optional prefix."""
        return {prefix + name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Ledger:
        """The inverse of `to_dict`.

        Raises:
            RunFolderError: an older version saved it, and what that did not count cannot be known now.
        """
        if missing := [field.name for field in fields(cls) if field.default is not None and field.name not in state]:
            raise RunFolderError(
                f"the checkpoint is of an older version, which did not count {', '.join(missing)}: finish the run with "
                "that version, or start afresh with another --out"
            )
        return cls(**{field.name: state[field.name] for field in fields(cls) if field.name in state})
