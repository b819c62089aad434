"""Grading: what counts as the answer, what counts as right, and that no input can hang or crash the run."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motif.errors import DataError
from motif.grading import RULES, Grade, Grader, registry, worker
from motif.grading.exact import Exact
from motif.grading.math.rule import Math
from motif.grading.numeric import Numeric, number
from motif.method.answers import boxed, last_number
from support.waiting import until


@pytest.fixture(scope="module")
def grader():
    with Grader("math", time_limit=10) as shared:
        yield shared


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and ") Z " in stat.read_text())


def computes(pid: int) -> Callable[[], bool]:
    """Whether a process has computed for a tenth of a second since this was called."""
    before = sum(psutil.Process(pid).cpu_times()[:2])
    return lambda: sum(psutil.Process(pid).cpu_times()[:2]) > before + 0.1


@pytest.mark.parametrize(
    "text, answer",
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{1} or \boxed{2}", "1, 2"),
        (r"\boxed{0}; no: \boxed{1}, \boxed{2}$ and $\boxed{3}", "1, 2, 3"),
        (r"\boxed{5}\n\n\boxed{5}", "5"),
        (r"\boxed{1} and then \boxed{2", "1"),
        (r"\boxed{1 \boxed{2}}", "2"),
        (r"\boxed{\boxed{1}", "1"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.} }", r"\left\{ x \right."),
        (r"}} {\boxed{3}", "3"),
        (r"{ { \boxed{ 3 }", "3"),
        (r"\boxed{}", ""),
        (r"\boxed{7", None),
        ("no box", None),
        ("", None),
    ],
)
def test_last_complete_box(text, answer):
    assert boxed(text) == answer


def test_other_marks():
    assert boxed("<a>1</a> <a>2</a> <a>3", "<a>", "</a>") == "2"
    assert boxed("</a> <a>3", "<a>", "</a>") is None
    assert boxed("**1** or **2** or **3", "**", "**") == "2"
    assert boxed("one ** only", "**", "**") is None


@pytest.mark.parametrize(
    "text, number",
    [
        ("it is -5.", "-5"),
        ("3-5", "5"),
        ("7 - 3", "3"),
        ("−3", "−3"),
        ("x = 1,234.50", "1,234.50"),
        (r"\$1{,}000", "1{,}000"),
        ("3/4 of it", "3/4"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("2,3", None),
        ("1, 2, 3 or 4", None),
        ("is it 4 or 5?", None),
        ("3 + 4 = 7", "7"),
        ("day 3 (5 apples)", "5"),
        ("costs $4.", "4"),
        (".5", ".5"),
        ("GPT4 and x2", None),
        ("none", None),
    ],
)
def test_last_number(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    "unit",
    ["\\boxed{", "{", "\\", "1", "1,", "111,", "1/", "-", ".", "\\boxed{1}", "\\frac{", "\\frac{1}{2", "**", "<a>"],
)
def test_extraction_is_linear_on_a_megabyte(unit):
    text = unit * (1_000_000 // len(unit))
    started = time.process_time()
    boxed(text), boxed(text, "<a>", "</a>"), boxed(text, "**", "**"), last_number(text)
    assert time.process_time() - started < 20  # quadratic would be hours


@settings(max_examples=200)
@given(st.text(alphabet="\\boxed{}1,-/. $%ab", max_size=60))
def test_any_text_is_read_without_error(text):
    boxed(text), last_number(text)
    for grade in (
        Exact().grade("1", text),
        Numeric().grade("1", text),
        Numeric().grade(text, text),
        Math().quick("1", text),
    ):
        assert grade is None or grade.verdict in ("right", "wrong", "ungraded")


@given(st.integers(-(10**12), 10**12))
def test_every_spelling_of_an_integer_is_that_integer(value):
    for text in (str(value), f"{value:,}", f"${value}$", f"{value}.", f"{value}.00", f"{value:+}", f"{value} apples"):
        assert number(text) == value
    assert last_number(f"it is {value:,}") == f"{value:,}"


def test_exact():
    exact = Exact()
    assert exact.grade("a b", " a \n b").verdict == "right"
    assert exact.grade("１２", "12").verdict == "right"  # NFKC
    assert exact.grade("A", "a").verdict == "wrong"
    assert exact.grade("102", "10²").verdict == "wrong"
    assert exact.grade("21/2", "2½").verdict == "wrong"
    assert exact.grade(" ", "a").verdict == "ungraded"
    assert exact.grade("a", "a" * 1_000_000).verdict == "wrong"


@pytest.mark.parametrize(
    "text, value",
    [
        ("18", 18),
        ("025", 25),
        ("-7", -7),
        ("−7", -7),
        ("+7", 7),
        ("1,234,567", 1234567),
        (r"1{,}234", 1234),
        (r"10,\!236", 10236),
        ("0.50", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        (r"\dfrac{1}{2}", Fraction(1, 2)),
        (r"-\frac{3}{4}", Fraction(-3, 4)),
        ("$18", 18),
        (r"\$18.50", Fraction(37, 2)),
        ("-$18", -18),
        ("$-18", -18),
        ("£1,000", 1000),
        ("18€", 18),
        ("$18$", 18),
        (r"$\$18$", 18),
        ("60%", 60),
        (r"60\%", 60),
        ("18 dollars", 18),
        (r"18\text{ dollars}", 18),
        (r"5 \text{ cm}^2", 5),
        ("60 km/h", 60),
        (r"45^\circ", 45),
        ("45°", 45),
        ("18.", 18),
        ("1e3", 1000),
        ("x", None),
        ("", None),
        ("--5", None),
        ("-$-5", None),
        ("1,23", None),
        ("1 2", None),
        ("2x", None),
        ("3 million", 3_000_000),
        ("2 pi", None),
        ("2 and a half", None),
        ("2½", Fraction(5, 2)),
        (r"\text{42}", 42),
        (r"\textbf{42}", 42),
        (r"\frac12", Fraction(1, 2)),
        ("(5)", 5),
        ("x = 5", 5),
        (r"\(5\)", 5),
        (r"1\,000", 1000),
        (r"\text{27 apples}", 27),
        (r"0.1\overline{6}", Fraction(1, 6)),
        ("forty-two", 42),
        ("5 times six", None),
        ("2x = 5", None),
        ("12, 345", None),
        ("2023-05-01", None),
        (r"\cancel{41} 42", None),
        ("10²", None),
        ("1/0", None),
        ("1e999999999", None),
        ("1e9999", None),
        ("5 or 6", None),
        ("1" * 201, None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_number(text, value):
    assert number(text) == value


def test_numeric_verdicts():
    numeric = Numeric()
    assert numeric.grade("60%", "60").verdict == "right"
    assert numeric.grade("60%", "0.6").verdict == "wrong"
    assert numeric.grade("0.1", "0.10000000000000000001").verdict == "wrong"
    assert numeric.grade("18", "eighteen").verdict == "right"
    assert numeric.grade("18", "1" * 1_000_000).verdict == "wrong"
    assert numeric.grade("eighteen or so", "18").verdict == "ungraded"


@pytest.mark.parametrize(
    "gold, prediction",
    [
        ("025", "25"),
        (r"\frac{1}{2}", "0.5"),
        (r"\frac{1}{2}", r"$\frac12$"),
        ("x^2+1", "1+x^2"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"),
        (r"\text{odd}", "Odd"),
        (r"\text{(E)}", "E"),
        (r"\text{two lines}", r"\textbf{two lines}"),
        (r"70\%", "0.7"),
        (r"\$4813.24", "4,813.24"),
        ("2,3", "3,2"),
        ("3", "x = 3"),
        (r"5 \text{ cm}", "5"),
        (r"2 + \sqrt{3}", r"\sqrt{3} + 2"),
        ("1,008", r"1{,}008"),
    ],
)
def test_math_right(grader, gold, prediction):
    assert grader.grade(gold, prediction).verdict == "right"


@pytest.mark.parametrize(
    "gold, prediction",
    [
        ("2", "2x"),
        ("3", "3 or 4"),
        (r"\text{listen}", "silent"),
        ("listen", "silent"),
        ("102", "10²"),
        (r"\frac{1}{2}", "2"),
        ("(1,2)", "(2,1)"),
        ("5", r"1} \boxed{5"),
        ("5", ""),
        ("5", r"\frac{\frac{" * 100),
        ("5", "x" * 3000),
    ],
)
def test_math_wrong(grader, gold, prediction):
    assert grader.grade(gold, prediction).verdict == "wrong"


def test_math_ungraded_gold(grader):
    assert grader.grade("", "5").verdict == "ungraded"
    assert grader.grade("x" * 3000, "5").verdict == "ungraded"


@pytest.mark.parametrize(
    "prediction",
    [
        "10**10**10",
        "((((" * 400,
        r"\frac{1}{" * 60 + "2" + "}" * 60,
        "2^{2^{2^{2^{2^{2}}}}}",
        "\\" * 999,
        "{" * 999,
        "\0",
        "\ud800",
    ],
)
def test_hostile_input_is_never_right(prediction):
    with Grader("math", time_limit=1) as limited:
        assert limited.grade("5", prediction).verdict in ("wrong", "ungraded")
        assert limited.grade("5", "5").verdict == "right"


def test_time_limit_kills_and_the_next_verdict_works(hangs):
    with Grader("math", time_limit=1.5) as limited:
        grade = limited.grade("5", hangs)
        assert (grade.verdict, grade.reason) == ("wrong", "grading it took more than 1.5 s")
        assert grade.seconds > 1.4  # seconds of computing, which take longer on a busy machine
        assert limited.grade("x+1", "1+x").verdict == "right"
        assert ("5", hangs) not in limited._cache


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot choose a processor")
def test_a_hanging_answer_is_wrong_beside_busy_processes(hangs):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        with Grader("math", time_limit=1) as limited:
            assert limited.grade("42", hangs).verdict == "wrong"
    finally:
        os.sched_setaffinity(0, before)
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("waits", "elapsed", "computed", "queued", "verdict"),
    [
        (False, 5, 5, 0, "wrong"),  # it computes
        (False, 5, 2, 0, None),  # the machine is busy, whether or not it says so
        (False, 49, 4.9, 44, None),
        (False, 50, 0, 0, "wrong"),  # the longest that anybody waits
        (True, 5, 5, 0, "wrong"),
        (True, 5, 0.1, 0, "ungraded"),  # it waits for something
        (True, 5, 2, 0.5, "ungraded"),
        (True, 5, 1.5, 3, None),  # it waits for the processor only
        (True, 15, 5, 9, "wrong"),
        (True, 20, 5, 1, "ungraded"),
    ],
)
def test_when_a_verdict_has_taken_too_long(monkeypatch, waits, elapsed, computed, queued, verdict):
    times = {"clock": 100.0, "computed": 7.0, "queued": 3.0}
    monkeypatch.setattr(worker.time, "perf_counter", lambda: times["clock"])
    monkeypatch.setattr(worker, "_computed", lambda *_, **__: times["computed"])
    monkeypatch.setattr(worker, "_queued", lambda *_: times["queued"])
    rule = registry.find("mine.py:judge" if waits else "math")
    one = worker.Worker(rule, 5.0)
    one.process = types.SimpleNamespace(pid=1)
    overdue = one._limit()
    times |= {"clock": 100.0 + elapsed, "computed": 7.0 + computed, "queued": 3.0 + queued}
    grade = overdue()
    assert (grade and grade.verdict) == verdict


def test_a_dying_worker_is_ungraded_and_replaced(hangs):
    with Grader("math", time_limit=30) as limited:
        assert limited.grade("x+1", "1+x").verdict == "right"
        process = limited._all[0].process
        under_way = computes(process.pid)
        threading.Thread(target=lambda: (until(under_way), process.kill())).start()
        grade = limited.grade("5", hangs)
        assert (grade.verdict, grade.reason) == ("ungraded", "the grading worker died")
        assert limited.grade("x+2", "2+x").verdict == "right"


def test_an_idle_worker_that_died_is_replaced_unnoticed():
    with Grader("math", time_limit=10) as limited:
        limited.grade("x+1", "1+x")
        limited._all[0].process.kill()
        limited._all[0].process.wait()
        assert limited.grade("x+2", "2+x").verdict == "right"


def test_an_exception_is_ungraded_with_its_message(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Numeric, "thorough", broken)
    grade = Grader("numeric").grade("1", "1")
    assert (grade.verdict, grade.reason) == ("ungraded", "ZeroDivisionError: by zero")


def test_equal_pairs_are_judged_once(monkeypatch):
    calls = []
    monkeypatch.setattr(Exact, "thorough", lambda self, *pair: calls.append(pair) or Grade("right"))
    grader = Grader("exact")
    grades = grader.grade_many([("a", "a"), ("b", "b"), ("a", "a"), ("a", None)])
    assert [grade.verdict for grade in grades] == ["right", "right", "right", "wrong"]
    grader.grade("a", "a")
    assert calls == [("a", "a"), ("b", "b")]


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr("motif.grading.grader.CACHED", 3)
    grader = Grader("exact")
    grader.grade_many([(str(n), "a") for n in range(10)])
    assert len(grader._cache) == 3


def test_no_answer_is_wrong():
    for name in RULES[:3]:
        assert Grader(name).grade("5", None) == Grade("wrong", "no answer")


def test_plain_answers_need_no_process(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a process"))
    assert Grader("math").grade("25", "025").verdict == "right"
    assert Grader("math").grade("25", "26").verdict == "wrong"
    assert Grader("numeric").grade("25", "25 dollars").verdict == "right"


def test_several_workers_keep_the_order():
    pairs = [(f"x+{n}", f"{n}+x" if n % 3 else "x") for n in range(1, 13)]
    with Grader("math", time_limit=30, workers=2) as grader:
        grades = grader.grade_many(pairs)
    assert [grade.verdict for grade in grades] == ["right" if n % 3 else "wrong" for n in range(1, 13)]


def test_check_does_not_take_equal_text_for_an_answer():
    with Grader("math", time_limit=10) as grader:
        assert [g.verdict for g in grader.check(["5", "(" * 999, "x+1", ""])] == [
            "right",
            "wrong",  # no answer, whatever it equals
            "right",
            "ungraded",
        ]
    assert [g.verdict for g in Grader("numeric").check(["5", "five or so"])] == ["right", "ungraded"]


def test_close_leaves_no_process():
    grader = Grader("math", time_limit=10)
    grader.grade("x+1", "1+x")
    pid = grader._all[0].process.pid
    assert alive(pid)
    grader.close()
    assert not alive(pid)
    grader.close()


def test_a_forgotten_grader_is_cleaned_up():
    grader = Grader("math", time_limit=10)
    grader.grade("x+1", "1+x")
    pid = grader._all[0].process.pid
    del grader
    until(lambda: not alive(pid))


def test_ctrl_c_does_not_reach_the_worker():
    with Grader("math", time_limit=10) as grader:
        grader.grade("x+1", "1+x")
        pid = grader._all[0].process.pid
        os.kill(pid, signal.SIGINT)
        assert grader.grade("x+2", "2+x").verdict == "right"
        assert grader._all[0].process.pid == pid
        assert os.getpgid(pid) != os.getpgid(0)


def test_works_off_the_main_thread():
    grades = []
    with Grader("math", time_limit=10) as grader:
        threads = [threading.Thread(target=lambda n=n: grades.append(grader.grade(f"x+{n}", f"{n}+x"))) for n in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [grade.verdict for grade in grades] == ["right", "right"]


def run_script(folder, text, **kwargs):
    script = folder / "script.py"
    script.write_text(textwrap.dedent(text))
    # The folder also has a math.py and a motif folder, as a user's might.
    (folder / "math.py").write_text("raise SystemExit('the wrong math')")
    # An empty part of PYTHONPATH would be the folder itself.
    paths = [str(Path(worker.__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen([sys.executable, "-P", str(script)], cwd=folder, env=environment, text=True, **kwargs)


def test_a_script_needs_no_main_guard(tmp_path):
    process = run_script(
        tmp_path,
        """
        from motif.grading import Grader
        import sys
        grader = Grader("math", time_limit=30)
        print(grader.grade("x+1", "1+x").verdict, grader._all[0].process.pid, "torch" in sys.modules)
        """,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = process.communicate(timeout=300)[0]
    assert re.fullmatch(r"right \d+ False\n", output)
    until(lambda: not alive(int(output.split()[1])))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an alarm ends it, later")
def test_a_hung_worker_does_not_outlive_a_killed_parent(tmp_path, hangs):
    process = run_script(
        tmp_path,
        f"""
        from motif.grading import Grader
        grader = Grader("math", time_limit=60)
        grader.grade("x+1", "1+x")
        print(grader._all[0].process.pid, flush=True)
        grader.grade("5", {hangs!r})
        """,
        stdout=subprocess.PIPE,
    )
    pid = int(process.stdout.readline())
    until(computes(pid))
    process.kill()
    process.communicate()
    until(lambda: not alive(pid))


def test_the_worker_has_a_memory_limit():
    pytest.importorskip("resource")
    code = "from motif.grading import worker; worker._limit_memory(1 << 30); bytearray(3 << 30)"
    environment = os.environ | {"PYTHONPATH": str(Path(worker.__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True, env=environment)
    assert "MemoryError" in run.stderr


def test_bad_arguments_are_refused():
    with pytest.raises(DataError, match="known are exact, numeric, math"):
        Grader("maths")
    with pytest.raises(ValueError, match="positive"):
        Grader("math", time_limit=0)


def test_a_rule_that_cannot_be_loaded_says_what_to_install(monkeypatch, tmp_path):
    (tmp_path / "mpmath.py").write_text("raise ImportError('not here')")
    monkeypatch.setattr("motif.grading.worker._PACKAGES", f"{tmp_path}{os.pathsep}{Path(worker.__file__).parents[2]}")
    with pytest.raises(DataError, match=r"not here.*pip install mpmath"):
        Grader("math").grade("x+1", "1+x")
