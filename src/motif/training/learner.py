"""The optimiser, in the warm start as in the steps after it: its rate, what it skipped, and what it took."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from motif.config import Recipe
from motif.display import Display
from motif.errors import NonFiniteError
from motif.sampling.base import Usage
from motif.session import Session
from motif.training.batch import Sample, UpdateStats
from motif.training.progress import Clock, Progress
from motif.training.update import make_optimizer, update


class Learner:
    """The optimiser of a run, and what its steps add to the run's state."""

    def __init__(self, session: Session, state: Progress, display: Display):
        self.session, self.state, self.display = session, state, display
        with session.policy.activation_checkpointing(session.recipe.train.recomputes):
            pass  # what the first update would refuse is refused now
        self.begin()

    def begin(self) -> None:
        """Take a new optimiser."""
        session = self.session
        self.optimizer = make_optimizer(session.policy.trainable(), session.recipe.train, session.processes)

    def learn(self, samples: Sequence[Sample], rate: float, recipe: Recipe, max_gap: float = 0.0) -> UpdateStats:
        """Train on these samples with this learning rate (see `update`), and count what was skipped."""
        session, state = self.session, self.state
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        session.sampler.rest()
        parts = (session.policy, self.optimizer, samples, recipe, session.processes, state.budget)
        stats = update(*parts, max_gap=max_gap)
        if warning := state.budget.pop_warning(state.step):
            self.display.message(warning)
        state.skips.add(stats.skipped)
        return stats

    def charge(self, usage: Usage, stats: UpdateStats, clock: Clock) -> None:
        """Add work and time to the ledger; `usage` is what this process's trees took."""
        ledger, parameters = self.state.ledger, self.session.policy.computed_parameters
        spent = (usage.generated_tokens, usage.prefill_tokens, usage.requested_prompt_tokens)
        generated, prefill, requested = map(int, self.session.processes.total(spent))
        ledger.updates += stats.updates
        ledger.generated_tokens += generated
        ledger.prefill_tokens += prefill
        ledger.prefill_saved += requested - prefill
        ledger.trained_tokens += stats.tokens
        per_update_token = 6 if self.session.recipe.model.adapter == "full" else 4
        ledger.flops += parameters * (2.0 * (generated + prefill) + per_update_token * stats.computed_tokens)
        ledger.seconds += clock.total()
        ledger.sampling_seconds += clock.laps.get("sample", 0.0) + clock.laps.get("wait", 0.0)
        ledger.grading_seconds += clock.laps.get("grade", 0.0)
        ledger.training_seconds += clock.laps.get("update", 0.0)

    def refuse_more_skips(self, save: Callable[[], None]) -> None:
        """Save and stop where the gradient was not finite in too many steps in a row.

        Raises:
            NonFiniteError: it was.
        """
        skips = self.state.skips
        if skips.too_many:
            skips.in_a_row = 0
            save()
            raise NonFiniteError(skips.explain())
