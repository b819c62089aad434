"""What a recipe asks for, wherever it runs: counts, the tokens of its prompts, and the questions, for the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from motif.config import Recipe, RolloutConfig, is_stem
from motif.errors import RecipeError
from motif.evaluation.probe import probe_questions
from motif.method.rounds import NOTE_SEAM, Rounds
from motif.models.architecture import check_vocabulary
from motif.models.hub import load_config, load_tokenizer
from motif.models.prefix import common_prefix_length
from motif.models.shape import Shape, model_shape, window_of
from motif.planning.devices import Device
from motif.planning.forecast import Forecast
from motif.planning.lengths import Lengths
from motif.planning.memory import trainable
from motif.planning.warmstart import in_words
from motif.session import open_task, with_examples
from motif.tasks import Task
from motif.text import abbreviated, counted, whole_percent


@dataclass(frozen=True)
class Workload:
    """What a recipe asks for, wherever it runs."""

    recipe: Recipe
    shape: Shape
    task: Task
    prompt_tokens: int  # of a typical first-round prompt
    seam_tokens: int  # that the scaffold adds to it in later rounds, besides notes
    shared_tokens: int = 0  # with which the prompts of all questions begin
    template: bool = True  # whether the model has a chat template

    @property
    def evaluations(self) -> int:
        """How often the run evaluates on all held-out questions."""
        train, config = self.recipe.train, self.recipe.eval
        warm = 1 if self.recipe.warmstart.source else 0
        return (2 if train.steps else 1) + warm + (0 if config.questions_during else self._evaluations_during)

    @property
    def _evaluations_during(self) -> int:
        every = self.recipe.eval.every
        return max(0, self.recipe.train.steps - 1) // every if every else 0

    @property
    def evaluated(self) -> float:
        """The same in time: evaluations on some of the questions count by their share."""
        few, all_ = self.recipe.eval.questions_during, min(self.recipe.eval.questions, len(self.task.test))
        return self.evaluations + (self._evaluations_during * min(1.0, few / all_) if few and all_ else 0.0)

    @property
    def most_tokens(self) -> int:
        """New tokens of one step, if every response used up its limit and every question were replaced that may be."""
        rollout = self.recipe.rollout
        later = (rollout.generations_in(rollout.longest) - rollout.responses) * rollout.tokens_continue
        questions = rollout.questions_per_step * rollout.tries
        return questions * (rollout.responses * rollout.tokens_first + later)

    def forecast(self, device: Device, count: int, lengths: Lengths, half: bool) -> Forecast:
        """Estimate what it takes on these devices."""
        return Forecast(
            recipe=self.recipe,
            shape=self.shape,
            device=device,
            count=count,
            lengths=lengths,
            prompt=self.prompt_tokens,
            seam=self.seam_tokens,
            held_out=len(self.task.test),
            grader=self.task.grader,
            half=half,
            train=len(self.task.train),
        )

    def rows(self, where: str) -> list[tuple[str, str]]:
        """What to show, as (name, text) pairs."""
        recipe, rollout, task = self.recipe, self.recipe.rollout, self.task
        generations = rollout.generations * rollout.questions_per_step
        trained = "round 1" if recipe.credit.train_rounds == "first" else "all rounds"
        trained = "the last round" if is_stem(rollout.branching) else trained
        trained = {"notes": "notes of ", "reasoning": "all but the notes of "}.get(recipe.credit.tokens, "") + trained
        tested = min(recipe.eval.questions, len(task.test))
        counts = "in pieces" if recipe.data.in_pieces else "at " + _numbers(recipe.eval_rounds, "and")
        matched = f", and one of {recipe.matched_tokens:,} tokens" if recipe.eval.matched else ""
        skipped = f", {counted(len(task.skipped), 'row')} skipped" if task.skipped else ""
        refill = f", dead questions replaced, up to {rollout.tries} tried for each" if rollout.refill else ""
        more = " and what replaces dead questions" if rollout.refill else ""
        steps, questions = recipe.train.steps, rollout.questions_per_step
        plain = "" if self.template else ", no chat template: prompts have a plain layout"
        return [
            ("recipe", f"{recipe.name}: {recipe.about}" if recipe.about else recipe.name),
            ("model", f"{recipe.model.name}, {_sizes(self.shape)}, {where}{plain}"),
            ("trained", self._trained()),
            ("data", f"{counted(len(task.train), 'question')} to train on, {len(task.test):,} held out{skipped}"),
            (
                "each step",
                f"{counted(questions, 'question')} × {counted(rollout.responses, 'response')} × "
                f"{counted(rollout.trajectories, 'trajectory', 'trajectories')}, "
                f"{'about ' * recipe.data.in_pieces}{_rounds(rollout)} (branching {rollout.branching}): "
                f"{counted(generations, 'generation')}{refill}, at most {self.most_tokens:,} new tokens; "
                f"trained: {trained}",
            ),
            *([("warm start", in_words(recipe, len(task.train)))] if recipe.warmstart.source else []),
            *([("curriculum", self._curriculum())] if recipe.data.curriculum else []),
            (
                "the run",
                f"{counted(steps, 'step')}, {counted(steps * questions, 'question')}, "
                f"{counted(steps * generations, 'generation')}{more}",
            ),
            (
                "evaluation",
                f"{counted(tested, 'question')} {counts}{matched}, {self._times(tested)}" if tested else "none",
            ),
            *([("probe", self._probe())] if recipe.probe.questions else []),
        ]

    def _times(self, tested: int) -> str:
        few = min(tested, self.recipe.eval.questions_during)
        during = self._evaluations_during if few else 0
        between = f", and {few:,} of them {counted(during, 'time')} between" if during else ""
        return f"{counted(self.evaluations, 'time')}{between}"

    def _curriculum(self) -> str:
        data, lengths = self.recipe.data, sorted({question.length for question in self.task.train})
        share = whole_percent(data.curriculum)
        return (
            f"lengths {lengths[0]} to {lengths[-1]} ({len(lengths)} of them) join one by one: the next when {share} is "
            f"right in the last {data.curriculum_questions} questions of the longest in use"
        )

    def _trained(self) -> str:
        model, counts = self.recipe.model, self.shape.counts
        size = abbreviated(trainable(self.recipe, self.shape))
        if model.adapter == "full":
            return f"all weights that text passes, {size} parameters"
        share = 100 * self.shape.reached / max(1, counts.matrices)
        return f"LoRA, r = {model.lora_rank}, {size} parameters, on {share:.3g} % of the weights (embeddings left out)"

    def _probe(self) -> str:
        probe, rollout, steps = self.recipe.probe, self.recipe.rollout, self.recipe.train.steps
        times = 2 + (max(0, steps - 1) // probe.every if probe.every else 0)
        continued = (rollout.responses + 2) * probe.continuations * (rollout.rounds - 1)
        total = probe.questions * (rollout.generations + continued)
        generations = counted(total, "generation")
        often = f"{counted(times, 'time')}; not in the time below"
        return f"{counted(probe.questions, 'question')}, at most {generations}, {often}"


def workload_of(recipe: Recipe) -> Workload:
    """Load the questions and the tokenizer, not the weights, and count what is asked for.

    Raises:
        ModelError: the model cannot be found.
        DataError: the data cannot be used.
        RecipeError: there are too few questions.
    """
    recipe = with_examples(recipe)
    shape = model_shape(recipe.model.name, recipe.model.lora_targets)
    tokenizer = load_tokenizer(recipe.model.name)
    check_vocabulary(recipe.model.name, tokenizer, load_config(recipe.model.name), shape.vocabulary)
    task = open_task(recipe, tokenizer, window_of(recipe, shape.max_length))
    if not task.train:
        raise RecipeError(f"task {task.name!r} has no training questions: set data.train")
    probe_questions(task, recipe)  # refuses more than there are
    sample = task.train[:50]
    if recipe.data.in_pieces:  # planned as if every text had as many pieces as the mean one
        branching = recipe.rollout.branching_in(round(sum(len(question.pieces) for question in sample) / len(sample)))
        recipe = recipe.with_settings("rollout", branching=branching)
    rounds, count = Rounds(recipe.rounds, tokenizer), recipe.rollout.longest
    texts = [rounds.asked(question, 1) for question in sample]
    prompts = sorted(rounds.prompt(text, [], count) for text in texts)
    first = sum(map(len, prompts)) / len(texts)
    second = sum(len(rounds.prompt(text, [""], max(count, 2))) for text in texts) / len(texts)
    shared = common_prefix_length(prompts[0], prompts[-1]) if len(prompts) > 1 else 0
    seam = max(0, round(second - first)) + NOTE_SEAM
    return Workload(recipe, shape, task, round(first), seam, shared, bool(tokenizer.chat_template))


def _rounds(rollout: RolloutConfig) -> str:
    return _numbers(sorted(set(rollout.counts)), "or")


def _numbers(counts: Sequence[int], word: str) -> str:
    """Numbers of rounds as a list in words: `1 round`, `1 and 3 rounds`."""
    before = f"{', '.join(map(str, counts[:-1]))} {word} " if len(counts) > 1 else ""
    return before + counted(counts[-1], "round")


def _sizes(shape: Shape) -> str:
    """Numbers of parameters, in words."""
    counts = shape.counts
    parts = [f"{abbreviated(counts.parameters)} parameters"]
    if counts.experts:
        parts.append(f"{abbreviated(counts.computed)} active for a token")
    if counts.towers:
        parts.append(f"{abbreviated(counts.towers)} in parts that text does not pass")
    if shape.stored:
        parts.append(f"stored as {shape.stored} and read as plain numbers")
    return ", ".join(parts)
