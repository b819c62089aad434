"""The circuit task: its questions, its golds, the model's way of solving them, and golds for your own circuits."""

import json
import random

import pytest
import torch

import make_circuit_model as maker
from motif.config import CircuitConfig
from motif.demo import MODELS
from motif.grading.circuit import truth_table
from motif.grading.circuit.rule import Circuit
from motif.tasks.circuit import gold_from_bits, gold_from_row, questions, side_of
from motif.tasks.splits import SPLITS

CIRCUIT = Circuit()


def sample(inputs):
    return [question for split in SPLITS for question in questions(CircuitConfig(inputs=inputs), split)[:10]]


def bits_of(question):
    return "".join(json.loads(question.gold)["truth_table"]["rows"].values())


@pytest.mark.parametrize("inputs, total", [(2, 14), (3, 254), (4, 8000)])
def test_train_and_test_share_no_function(inputs, total):
    train, test = ([bits_of(q) for q in questions(CircuitConfig(inputs=inputs), split)] for split in ("train", "test"))
    assert not set(train) & set(test)
    assert len(set(train)) + len(set(test)) == len(train) + len(test) == total
    assert len(test) > 0
    assert all(set(bits) == {"0", "1"} for bits in train + test)


def test_forms_and_splits_agree():
    table, minterms = (questions(CircuitConfig(inputs=3, form=form), "train") for form in ("table", "minterms"))
    assert [q.gold for q in table] == [q.gold for q in minterms]
    assert not {q.id for q in table} & {q.id for q in minterms}
    question = next(q for q in table if bits_of(q) == "01101000")
    assert question.text == "y(abc) = 01101000"
    assert next(q for q in minterms if bits_of(q) == "01101000").text == "y(abc) = 1 at 1,2,4"


def test_only_functions_with_so_many_ones():
    assert all(bits_of(q).count("1") == 3 for q in questions(CircuitConfig(minterms=3), "test"))


def test_every_gold_passes_itself_and_no_constant():
    for question in [*sample(2), *sample(3), *sample(4)]:
        assert CIRCUIT.check_gold(question.gold).verdict == "right"
        for wrong in ("", "0", "1", "1'b0", "1'b1"):
            assert CIRCUIT.quick(question.gold, wrong).verdict == "wrong"


def test_golds_of_rows():
    module = "module top(input a, output y); assign y = ~a; endmodule"
    table = {"inputs": ["a"], "outputs": ["y"], "rows": {"0": "1", "1": "0"}}
    assert gold_from_row({"verilog": module, "specification": "invert"}) == module
    assert json.loads(gold_from_row({"verilog": module, "reset": {"rst_n": 0}})) == {
        "verilog": module,
        "reset": {"rst_n": 0},
    }
    # The reader of JSONL files keeps numbers as they are spelled.
    assert CIRCUIT.check_gold(gold_from_row({"verilog": module, "reset": {"rst_n": "0"}})).verdict == "right"
    for row in ({"truth_table": table}, {"truth_table": json.dumps(table)}, {"answer": module}):
        gold = gold_from_row(row)
        assert CIRCUIT.check_gold(gold).verdict == "right"
        assert CIRCUIT.quick(gold, module).verdict == "right"
    deep = {"truth_table": "[" * 100_000}
    for row in ({}, {"verilog": module, "answer": "x"}, {"verilog": 3}, {"truth_table": [1]}, deep):
        with pytest.raises(ValueError, match="column"):
            gold_from_row(row)


def test_gold_from_bits():
    assert json.loads(gold_from_bits("0110"))["truth_table"]["rows"] == {"00": "0", "01": "1", "10": "1", "11": "0"}
    for wrong in ("", "01", "0120", "01100"):
        with pytest.raises(ValueError, match="4, 8 or 16"):
            gold_from_bits(wrong)


def test_the_careful_way_is_right_for_every_table():
    rng = random.Random(0)
    for _ in range(500):
        bits = maker.random_bits(rng)
        symbols = maker.fold(bits)
        answer = maker.multiplexer(maker.functions(symbols))
        assert maker.unfold(symbols) == bits
        assert CIRCUIT.quick(gold_from_bits(bits), answer).verdict == "right"
        assert maker.is_right(bits, f"\\boxed{{{answer}}}")
        assert side_of(bits) == "train"


def test_notes_that_lose_something_seldom_lead_to_a_right_answer():
    rng = random.Random(0)
    tables = [maker.random_bits(rng) for _ in range(300)]
    for lossy in (maker.rough, lambda bits: maker.fold(bits[:8])):
        answers = [maker.multiplexer(maker.functions(lossy(bits))) for bits in tables]
        right = [CIRCUIT.quick(gold_from_bits(b), a).verdict == "right" for b, a in zip(tables, answers, strict=True)]
        assert sum(right) < 0.05 * len(right)


def test_no_window_is_too_small_for_a_careful_response():
    tokenizer = maker.make_tokenizer()
    longest = 0
    for row in maker.CircuitCorpus(tokenizer, 0).rows("examples", 400):
        learnt = [label for label in row.labels if label != maker.IGNORED]
        longest = max(longest, len(learnt))
        assert tokenizer.unk_token_id not in row.token_ids
    assert 36 <= longest <= maker.WINDOW


def test_the_model_is_asked_as_the_task_asks():
    question = questions(CircuitConfig(), "test")[0]
    assert maker.question_text(bits_of(question)) == question.text
    assert truth_table.expression("a?b?1:0:0", "abcd") == int(f"{'0' * 12}1111"[::-1], 2)


@pytest.mark.slow
def test_the_shipped_model_knows_the_folds_but_not_which_note_to_write():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = MODELS["embedded-circuit"]
    figures = json.loads((folder / "warm_start.json").read_text())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    report = maker.warm_start_report(model, tokenizer, limit=100, repeats=2)
    assert report["success_by_first_note_style"]["careful"] > 0.95
    assert report["1_round_greedy"] < 0.05
    assert 0.15 < report["3_rounds_greedy"] < 0.5
    assert report["3_rounds_sampled"] == pytest.approx(figures["3_rounds_sampled"], abs=0.12)
