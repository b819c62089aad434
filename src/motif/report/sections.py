"""The sections of charts, in the order of reading: does it learn, from what, what does it write, is it stable?"""

from __future__ import annotations

from collections.abc import Sequence

from motif.report.charts import Chart, by_round, eval_points, lines, rate_bars
from motif.report.now import GIB, MEMORY, tokens_per_second
from motif.runs.read import Evaluation, Record, number

SHARE = (0.0, 1.0)
OF_RESPONSES = "share of responses (%)"


def sections(steps: list[Record], made: Sequence[Evaluation], rounds: int | None) -> list[Record]:
    """Title, lead and charts of each section. `steps` have `dead_share`; `rounds` is None where it is unknown."""
    notes = note_charts(steps) if rounds is None or rounds > 1 else []
    return [
        {
            "id": "learning",
            "title": "Learning",
            "lead": "Does the reward rise, and does that hold for questions never trained on?",
            "charts": [reward_chart(steps), eval_points(made)],
        },
        {
            "id": "outcomes",
            "title": "Outcomes",
            "lead": "Where does the learning signal come from, and is it running out?",
            "charts": [rate_bars(steps), *group_charts(steps)],
        },
        {
            "id": "responses",
            "title": "Responses",
            "lead": "What does the model write, round by round?",
            "charts": response_charts(steps) + notes,
        },
        {
            "id": "stability",
            "title": "Stability",
            "lead": "Is the optimisation stable?",
            "charts": stability_charts(steps),
        },
    ]


def spending(steps: list[Record]) -> Record:
    """The section of the ledger over training, which follows the others."""
    return {
        "id": "cost",
        "title": "Cost",
        "lead": "What training has spent so far, without evaluation and probes.",
        "charts": ledger_charts(steps),
    }


def reward_chart(steps: list[Record]) -> Chart:
    """The reward, and the outcome in it."""
    return lines(
        steps,
        {"outcome/mean": "outcome", "reward": "reward (format + outcome)"},
        id="reward",
        title="Reward during training",
        y="mean per response",
        unit="number",
        caption="Outcome is the fraction of a response's trajectories that end right; reward adds the format term.",
    )


def group_charts(steps: list[Record]) -> list[Chart]:
    """The implicit curriculum, and the groups without a learning signal; with `rollout.refill`, what it replaced."""
    replaced = lines(
        steps,
        {"refill/tried": "tried", "refill/kept": "kept"},
        id="refill",
        title="Questions tried and kept",
        y="questions per step",
        unit="count",
        caption="A question whose groups are all dead is replaced by another (rollout.refill); only those kept are "
        "trained on. The more that are tried for each one kept, the more is sampled in vain.",
    )
    return [
        lines(
            steps,
            {"outcome/sometimes": "sometimes", "outcome/never": "never", "outcome/always": "always"},
            id="curriculum",
            title="Never, sometimes, always solved",
            y="share of questions (%)",
            unit="percent",
            limits=SHARE,
            faint=False,
            share=6,
            caption="Look for “never” turning into “sometimes”, and “sometimes” into “always”. Questions that are "
            "solved sometimes are the ones that teach; when they run out, so does the signal.",
        ),
        lines(
            steps,
            {"dead_share": "dead groups"},
            id="dead",
            title="Dead groups",
            y="share of groups (%)",
            unit="percent",
            limits=SHARE,
            caption="Groups whose rewards are all equal: their advantages are zero, so they cost tokens and teach "
            "nothing.",
        ),
        *_recorded(replaced, length_chart(steps), replay_chart(steps)),
    ]


def replay_chart(steps: list[Record]) -> Chart:
    """How many questions began with notes of earlier trees (`rollout.replay`)."""
    return lines(
        steps,
        {"replay/questions": "with replayed notes"},
        id="replay",
        title="Questions with replayed notes",
        y="share of questions (%)",
        unit="percent",
        limits=SHARE,
        caption="The first rounds of these were not sampled: their notes are what the run has written to the same "
        "question before (rollout.replay). Without questions that come again there are none.",
    )


def length_chart(steps: list[Record]) -> Chart:
    """How long questions are where they begin short and grow (`data.curriculum`)."""
    return lines(
        steps,
        {"curriculum/length": "longest question"},
        id="lengths",
        title="Lengths in training",
        y="length of the longest question",
        unit="count",
        share=None,
        caption="The next length joins as soon as enough of the longest questions in use are answered right "
        "(data.curriculum).",
    )


def response_charts(steps: list[Record]) -> list[Chart]:
    """Length, truncation and format, a line per round."""
    depth = lines(
        steps,
        {"rounds/mean": "rounds of a trajectory"},
        id="rounds",
        title="Rounds",
        y="rounds per trajectory",
        unit="count",
        caption="Mean number of rounds of a trajectory, which ends with the first answer (rounds.may_finish), or in as "
        "many rounds as were drawn for its question (rollout.rounds_vary).",
    )
    return [
        *_recorded(depth),
        lines(
            steps,
            by_round(steps, "length/round_"),
            id="length",
            title="Response length",
            y="tokens per response",
            unit="count",
            caption="Mean over the responses of each round. A steady rise up to the limit turns into truncation.",
        ),
        lines(
            steps,
            by_round(steps, "truncated/round_"),
            id="truncated",
            title="Truncation",
            y=OF_RESPONSES,
            unit="percent",
            caption="Responses that were cut off by the token limit of their round.",
        ),
        lines(
            steps,
            by_round(steps, "format/rate_"),
            id="format",
            title="Well-formed responses",
            y=OF_RESPONSES,
            unit="percent",
            limits=SHARE,
            caption="One think block, one note block and nothing else: what the format reward asks for.",
        ),
    ]


def note_charts(steps: list[Record]) -> list[Chart]:
    """The notes that are carried from round to round, in tokens or in characters, whichever the run recorded."""
    measures = [unit for unit in ("tokens", "characters") if any(f"note/mean_{unit}" in record for record in steps)]
    measure = (measures or ["tokens"])[0]
    return [
        lines(
            steps,
            {f"note/mean_{measure}": "note"},
            id="note-length",
            title="Note length",
            y=f"{measure} per note",
            unit="count",
            caption="Mean length of the notes that are carried into the next round.",
        ),
        lines(
            steps,
            {"note/early_answer": "early answer", "note/empty": "empty note"},
            id="note-kind",
            title="Empty notes and early answers",
            y=OF_RESPONSES,
            unit="percent",
            caption="Of responses before the final round. An early answer is a final answer given there. With "
            "rounds.may_finish it ends the trajectory; without, later rounds only copy near 100 %.",
        ),
    ]


def stability_charts(steps: list[Record]) -> list[Chart]:
    """Entropy, gradient norm, sampler gap, clipping and learning rate; divergence and lag where they occur."""
    shown = [
        lines(
            steps,
            {"entropy": "entropy"},
            id="entropy",
            title="Entropy",
            y="nats per token",
            unit="number",
            caption="How undecided the model is at each token. A fall towards zero means it has stopped exploring.",
        ),
        lines(
            steps,
            {"grad_norm": "gradient norm"},
            id="grad",
            title="Gradient norm",
            y="norm before clipping",
            unit="number",
            caption="Single spikes are clipped and harmless; steady growth is a reason to lower the learning rate.",
        ),
        lines(
            steps,
            {"sampler/mean_gap": "gap"},
            id="gap",
            title="Sampler gap",
            y="mean |Δ log p| (nats)",
            unit="number",
            caption="How far sampler and trainer disagree on the probabilities of the same tokens. "
            "It should stay near zero.",
        ),
    ]
    always = {
        "clip_ratio": ("Clipped tokens", "share of tokens (%)", "Tokens whose probability left the clipping range."),
        "learning_rate": ("Learning rate", "step size", "As the schedule has it (train.schedule, train.warmup)."),
    }
    optional = {
        "kl": ("KL divergence", "nats per token", "Distance from the model as it was before training."),
        "sampler/capped": (
            "Capped tokens",
            "share of tokens (%)",
            "Tokens whose sampler and trainer disagree so much that their weight is capped.",
        ),
        "sampler/lag": ("Sampler lag", "updates", "How many updates old the sampler's weights were."),
    }
    for key, (title, y, caption) in (always | optional).items():
        # The others are off in most recipes, whose chart would be all zeros.
        if key in always or any(number(record.get(key)) for record in steps):
            unit = "percent" if "%" in y else "number"
            shown.append(lines(steps, {key: title}, id=key, title=title, y=y, unit=unit, caption=caption))
    return shown


def ledger_charts(steps: list[Record]) -> list[Chart]:
    """Running totals of tokens, time and floating-point operations, and the time of a step."""

    def totals(names: dict[str, str], **words: str) -> Chart:
        keys = {f"ledger/{name}": label for name, label in names.items()}
        return lines(steps, keys, limits=(0.0, None), faint=True, share=None, **words)

    return [
        totals(
            {"generated_tokens": "generated", "prefill_tokens": "prompts read", "trained_tokens": "in the loss"},
            id="ledger-tokens",
            title="Tokens",
            y="tokens so far",
            unit="tokens",
            caption="Generated tokens are the main cost of sampling; those in the loss are the ones learnt from.",
        ),
        totals(
            {"seconds": "all", "sampling_seconds": "sampling", "training_seconds": "training"},
            id="ledger-seconds",
            title="Time",
            y="time so far",
            unit="seconds",
            caption="Wall clock of the steps. The parts fall short of all by grading and recording.",
        ),
        totals(
            {"flops": "FLOPs"},
            id="ledger-flops",
            title="Floating-point operations",
            y="operations so far",
            unit="flops",
            caption="Computed from parameters and tokens, without attention.",
        ),
        lines(
            steps,
            {"time/total": "all", "time/sample": "sampling", "time/update": "training"},
            id="step-time",
            title="Time of a step",
            y="seconds per step",
            unit="seconds",
            caption="A slow rise usually comes from longer responses, a jump from the machine.",
        ),
        *_recorded(memory_chart(steps)),
        lines(
            with_speed(steps),
            {"speed": "generated tokens per second"},
            id="speed",
            title="Speed",
            y="tokens per second",
            unit="count",
            caption="Generated tokens of a step over its wall clock, all its parts counted.",
        ),
    ]


def memory_chart(steps: list[Record]) -> Chart:
    """What the training process held."""
    in_gib = [{key: None if (held := number(one.get(key))) is None else held / GIB for key in MEMORY} for one in steps]
    return lines(
        in_gib,
        MEMORY,
        id="memory",
        title="Memory",
        y="GiB held at most",
        unit="gib",
        faint=False,
        share=None,
        caption="The most that the training process held since the step before, evaluations and checkpoints between "
        "them included; of several processes, that of the largest. A rise that does not end is a leak.",
    )


def _recorded(*charts: Chart) -> list[Chart]:
    """Those of the charts that there is anything to show in."""
    return [chart for chart in charts if "missing" not in chart]


def with_speed(steps: list[Record]) -> list[Record]:
    """The records with `speed`: generated tokens per second of the step."""
    pairs = zip([{}, *steps], steps, strict=False)
    return [record | {"speed": tokens_per_second([before, record] if before else [record])} for before, record in pairs]
