"""The built-in system prompt, in the words that the settings call for.

It says how many rounds there are (or not), in which form a round is written, what the next round sees, and when the
answer is to be given.
"""

from __future__ import annotations

from motif.config import RoundsConfig

TAGS = """\
In every round you first reason about the question and then report your progress in detail. Write in exactly this form:
{think_open}
your reasoning
{think_close}
{note_open}
your progress
{note_close}
The reasoning is not kept. In the next round you see the question and your progress only, so the progress must hold \
everything you need to go on."""

OWN_MARKS = """\
In every round you first work on the question and then report your progress in detail, in exactly this form:
{note_open}
your progress
{note_close}
Nothing else is kept. In the next round you see the question and your progress only, so the progress must hold \
everything you need to go on."""
"""The same for models that mark their reasoning themselves: they are not told to, and it may be switched off."""

TAIL = """\
A round ends when its space is used up. In the next round you see the question and the end of what you wrote, and go \
on from there."""
"""The same where no form is asked for, and the end of a response is carried."""

WHEN = {
    (False, True): "When you are told that the current round is the final one, give the final answer{where}.",
    (True, True): (
        "Give the final answer as soon as you have it, and at the latest when you are told that the current round is "
        "the final one,{where}. It ends your work."
    ),
    (False, False): (
        "You are not told which round is the final one. As soon as you have the final answer, give it in every "
        "round{where}."
    ),
    (True, False): (
        "You are not told which round is the final one. Give the final answer as soon as you have it,{where}. It ends "
        "your work."
    ),
}
"""When the answer is given, by whether a trajectory may finish early and whether the final round is announced."""
IN_NOTE = " between {note_open} and {note_close}, enclosed as {answer_open}answer{answer_close}"
ANYWHERE = " enclosed as {answer_open}answer{answer_close}"


def system_prompt(config: RoundsConfig) -> str:
    """The built-in text, with placeholders for the number of rounds and the marks."""
    tail = config.carry == "tail"
    count = "in {rounds} round(s)" if config.total else "in several rounds"
    form = TAIL if tail else OWN_MARKS if config.think == "model" else TAGS
    when = WHEN[config.may_finish, config.announce_final].replace("{where}", ANYWHERE if tail else IN_NOTE)
    return f"You solve each question {count}. {form} {when} Only this enclosed answer is graded."


SYSTEM_PROMPT = system_prompt(RoundsConfig())
"""The text of the default settings."""
