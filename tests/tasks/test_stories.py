"""The tasks `stories` and `ledger`: answers computed again, sides that share nothing, worked solutions."""

from __future__ import annotations

import re

import pytest

from motif.config import DataConfig, LedgerConfig, StoriesConfig, load_recipe
from motif.errors import RecipeError
from motif.method.solutions import ANNOTATION
from motif.tasks import ledger, load, solutions, stories
from motif.tasks.splits import SPLITS

GAINED = re.compile(
    r"gave N\b|N found|N bought|N won|picked up|brought # for N\b|N got|N took|came for N\b|returned # to N\b|"
    r"N was handed|collected|discovered|shared # with N\b|book for #|received|added|N kept|"
    r"into N's pocket|dug up|inherited|fished|"
    r"left # at N's|awarded"
)


def counted(text):
    """The answer of a story, read from its text alone."""
    name = re.search(r"does (\w+) have now\?$", text)[1]
    sentences = re.split(r"(?<=\.) ", text)[:-1]
    numbers = [int(re.search(r"\d+", sentence)[0]) for sentence in sentences]
    plain = [re.sub(r"\d+ (more )?\w+", "#", re.sub(rf"\b{name}\b", "N", sentence)) for sentence in sentences[1:]]
    return numbers[0] + sum(n if GAINED.search(s) else -n for n, s in zip(numbers[1:], plain, strict=True))


@pytest.mark.parametrize("unseen", [False, True])
def test_the_answers_of_stories_are_right_and_stay_within_bounds(unseen):
    settings = StoriesConfig(shortest=1, longest=12, unseen_wordings=unseen)
    for side in SPLITS:
        made = stories.questions(settings, side)[:400]
        assert [counted(question.text) for question in made] == [int(question.gold) for question in made]
        assert all(0 <= int(question.gold) <= settings.largest for question in made)


def test_there_are_thirty_wordings_and_held_out_ones_that_no_training_story_has():
    assert len(dict(stories.SEEN)) == len(stories.SEEN) >= 30
    assert len(dict(stories.UNSEEN)) == 12 and not set(dict(stories.SEEN)) & set(dict(stories.UNSEEN))
    settings = StoriesConfig(unseen_wordings=True)
    words = "slipped dug inherited fished neighbour awarded misplaced persuaded carried donated paid thief"
    phrase = re.compile(words.replace(" ", "|"))
    assert not any(phrase.search(question.text) for question in stories.questions(settings, "train"))
    for question in stories.questions(settings, "test")[:200]:
        sentences = re.split(r"(?<=\.) ", question.text)[1:-1]
        assert all(phrase.search(sentence) for sentence in sentences)


def test_no_held_out_story_is_a_training_story_of_any_variant():
    def shape(question):
        name = re.search(r"does (\w+) have now", question.text)[1]
        plain = re.sub(r"\d+ (more )?\w+", "#", question.text.replace(name, "N"))
        return re.sub("|".join(stories.NAMES), "O", re.sub(r"How many .*", "", plain)).replace("was", "were")

    settings = StoriesConfig(shortest=1, longest=3)
    trained = {shape(question) for question in stories.questions(settings, "train")}
    other = StoriesConfig(shortest=1, longest=3, variant=1)
    tested = {shape(question) for question in stories.questions(other, "test")}
    assert len(tested) > 200 and not trained & tested


@pytest.mark.parametrize(("module", "section"), [(stories, StoriesConfig), (ledger, LedgerConfig)])
def test_a_variant_is_the_same_question_with_other_numbers(module, section):
    one, two = (module.questions(section(variant=variant), "test") for variant in (0, 1))
    assert [question.id for question in one] == [question.id for question in two]
    assert sum(a.text == b.text for a, b in zip(one, two, strict=True)) == 0
    assert one == module.questions(section(), "test")


@pytest.mark.parametrize("ask", ["total", "state", "both"])
def test_the_answers_of_ledgers_are_right_and_stay_within_bounds(ask):
    settings = LedgerConfig(ask=ask, shortest=3, longest=40)
    for question in ledger.questions(settings, "test")[:300]:
        listed, asked = question.text.split("\n")
        account, balance = re.search(r"account (\w)", asked)[1], 0
        entries = re.findall(r"(\d+) ([A-C])([-+=])(\d+)", listed)
        assert [int(place) for place, *_ in entries] == list(range(1, len(entries) + 1))
        for _, of, kind, number in entries:
            if of == account:
                balance = int(number) + (0 if kind == "=" else balance) if kind != "-" else balance - int(number)
                assert 0 <= balance <= settings.largest
        assert str(balance) == question.gold


def test_the_sides_of_ledgers_share_no_list_of_accounts_and_kinds():
    settings = LedgerConfig(shortest=1, longest=4)
    trained, tested = ({re.sub(r"[-+=]\d+", "", q.text) + "".join(re.findall("[-+=]", q.text))
                        for q in ledger.questions(settings, side)} for side in SPLITS)  # fmt: skip
    assert tested and not trained & tested


@pytest.mark.parametrize("task", ["stories", "ledger"])
def test_every_training_question_has_a_worked_solution_that_ends_in_its_answer(task):
    data = DataConfig(task=task)
    _, worked = solutions(data)
    made = load(data)
    assert not made.skipped and made.grader == "numeric"
    for question in made.train[:300]:
        notes = ANNOTATION.findall(worked[question.line])
        assert len(notes) == worked[question.line].count("\n") + 1
        assert re.findall(r"\d+", notes[-1])[-1] == question.gold
        for calculation in ANNOTATION.sub("", worked[question.line]).split("\n"):
            left, right = re.search(r"([\w +-]*)=([\w ]+)\.?$", calculation).groups()
            left = left if task == "ledger" else re.search(r"\d+ [+-] \d+ $", left).group()
            if not left.isalpha():
                assert eval(left) == int(right)


def test_settings_that_cannot_be_are_refused():
    for settings, problem in (
        ({"task": "stories", "stories": {"shortest": 4, "longest": 3}}, "shortest = 4 is above longest = 3"),
        ({"task": "stories", "stories": {"longest": 13}}, "data.stories.longest"),
        ({"task": "ledger", "ledger": {"question": "how much?"}}, "must contain {account}"),
        ({"task": "ledger", "ledger": {"accounts": 9}}, "data.ledger.accounts"),
    ):
        with pytest.raises(RecipeError, match=re.escape(problem)):
            load_recipe({"data": settings})
