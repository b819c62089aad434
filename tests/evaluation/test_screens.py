"""What could make an accuracy look better than it is: overlap, twins, and a second grader."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

from motif.config import load_recipe
from motif.errors import RecipeError
from motif.evaluation.accuracy import GradedAnswer, summarise
from motif.evaluation.rows import eval_rows
from motif.evaluation.screens import WORDS, overlap, twin_sentence
from motif.evaluation.second import Judged, second_opinion
from motif.grading import Grader
from motif.method.tree import Question
from motif.tasks import load
from motif.tasks.twins import recomputed, twins

LONG = "one two three four five six seven eight nine ten"


def asked(name: str, text: str, gold: str = "1", line: int = 1) -> Question:
    return Question(name, text, gold, line)


# -- overlap -----------------------------------------------------------------------------------------------------------


def test_shared_words_are_found_whatever_their_case_and_marks():
    train = [asked("t", f"Well: {LONG.upper()}!"), asked("u", "What is 2 + 2?")]
    test = [
        asked("part", f"zero {LONG}"),
        asked("same", "what is 2+2"),
        asked("none", "entirely other words stand in this question, ten of them"),
        asked("short", "What is 3 + 3?"),
    ]
    found = overlap(train, test)
    assert found.touched == ["part", "same"] and found.same == ["same"]
    runs = len(f"zero {LONG}".split()) - WORDS + 1
    assert found.shares["part"] == pytest.approx((runs - 1) / runs)
    record = found.to_dict({"part": 1.0, "same": 1.0, "none": 0.0, "short": None})
    assert (record["with"]["accuracy"], record["without"]["n"]) == (1.0, 1)
    assert "2 of 4 held-out questions share 8 words" in found.sentence({})


def test_the_pieces_of_a_text_are_words_of_its_question():
    text = Question("p", "How many?", "1", pieces=(LONG, "and more"))
    assert overlap([asked("t", f"so {LONG}")], [text]).touched == ["p"]


# -- twins -------------------------------------------------------------------------------------------------------------

CLIPS = asked("clips", "Mia sold 48 clips in April, and then she sold half as many in May. How many?", "72")
CLIPS_SOLVED = "Mia sold 48/2 = <<48/2=24>>24 clips in May.\nTogether 48+24 = <<48+24=72>>72."


def test_a_worked_solution_is_computed_again_with_other_numbers_and_names():
    twin = recomputed(CLIPS, CLIPS_SOLVED)
    number = next(int(word) for word in twin.text.split() if word.isdigit())
    assert number != 48 and twin.gold == str(number + Fraction(number, 2)) and "Mia" not in twin.text
    assert twin.id == "clips" and twin.text.endswith("in May. How many?")
    assert recomputed(CLIPS, CLIPS_SOLVED) == twin  # the same at every call


@pytest.mark.parametrize(
    ("question", "solution"),
    [
        (CLIPS, "No calculation at all."),
        (CLIPS, "<<48/2=25>> <<48+25=72>>"),  # does not add up
        (CLIPS, "<<48/2=24>>"),  # the answer is not the last result
        (asked("x", "24 of 48 are sold. How many remain?", "24"), "<<48-24=24>>"),  # 24 is asked about, and found
        (asked("x", "12 and 12 are?", "24"), "<<12+12=24>>"),  # which 12?
        (asked("x", "In 1999 there were 3 more. How many?", "2002"), "<<1999+3=2002>> <<open('x')=1>>"),
        (asked("x", "What is 7 less 7 less 0?", "0"), "<<7*0=0>>"),
        (asked("x", "15 servings at $4.00 a carton. How much for 60 days?", "16"), "60/15 is 4. <<4*4=16>>"),
        (asked("p", "A pen costs $1.50. What do 4 pens cost, with 1,200 left over?", "6"), "<<1.50*4=6>>"),  # 1,200?
        (asked("x", "A square of 4 by as many?", "16"), "<<4*4=16>>"),  # which 4?
    ],
)
def test_what_the_annotations_do_not_tell_has_no_twin(question, solution):
    assert recomputed(question, solution) is None


def test_prices_keep_their_kind():
    question = asked("p", "A pen costs $1.50. What do 4 pens cost?", "6")
    twin = recomputed(question, "<<1.50*4=6>>")
    price, count = twin.text.split("$")[1].split(". ")[0], int(twin.text.split("do ")[1].split()[0])
    assert Fraction(twin.gold) == Fraction(price) * count


def test_stories_are_told_again_and_sums_have_no_twin():
    recipe = load_recipe("stories-smollm2", ["eval.twin=true", "eval.questions=5"])
    questions = load(recipe.data).test[:5]
    made = twins(recipe.data, questions)
    assert [one.id for one in made] == [one.id for one in questions]
    assert all(one.whole != other.whole for one, other in zip(made, questions, strict=True))
    assert eval_rows(recipe)[-1].name == "pieces_twin" and eval_rows(recipe)[-1].twin
    with pytest.raises(RecipeError, match=r"'arithmetic' has a twin.*variants"):
        twins(load_recipe("demo").data, [asked("a", "What is 2 + 2?")])


def test_twins_of_rows_of_ones_own(tmp_path):
    file = tmp_path / "rows.jsonl"
    row = {"question": CLIPS.text, "answer": f"{CLIPS_SOLVED}\n#### 72"}
    file.write_text(json.dumps(row) + "\n")
    settings = [f'data.test="{file}"', f'data.train="{file}"', "data.answer_pattern='#### (.+)'", "data.task=file"]
    recipe = load_recipe({"data": {"grader": "numeric"}}, settings)
    [twin] = twins(recipe.data, [Question("test-1", CLIPS.text, "72", 1)])
    assert twin.gold != "72"


def test_twins_are_compared_in_pairs():
    own, twin = (
        summarise({str(n): [GradedAnswer(verdict, "1", False, True, 1)] for n, verdict in enumerate(verdicts)})
        for verdicts in (["right", "right", "wrong"], ["right", "wrong", "wrong"])
    )
    assert "−33.3 [" in twin_sentence({"rounds_3": own, "rounds_3_twin": twin})
    assert twin_sentence({"rounds_3": own}) == ""


# -- a second grader ---------------------------------------------------------------------------------------------------


def test_disagreements_are_counted_and_listed():
    answers = [Judged("a", "1/2", "0.5", "wrong"), Judged("b", "3", "4", "wrong"), Judged("c", "3", "x", "ungraded")]
    with Grader("numeric") as grader:
        found = second_opinion(grader, answers)
    assert (found.compared, found.undecided, len(found.disagreements)) == (2, 1, 1)
    [listed] = found.to_dict()["listed"]
    assert (listed["question"], listed["verdict"], listed["second"]) == ("a", "wrong", "right")
