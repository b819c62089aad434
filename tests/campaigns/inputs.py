"""How hostile inputs are made: well-meant ones of each kind, cut, spliced and filled with what breaks readers."""

from __future__ import annotations

import functools
import json
from typing import Any

from hypothesis import strategies as st

from motif.config import RECIPES, Recipe

NASTY = [
    "\x00", "\ufeff", "\u2028", "\x1b[2J", "\x1b]52;c;aGk=\x07", "\r", "\u202e", "\ud800", "\U0001f600", "é", "[bold]",
    "[/]", "<script>", "{", "}", "[" * 300, "{" * 300, "(" * 300, "9" * 400, "1e999", "-0", "NaN", "Infinity", "null",
    "../../etc/passwd", "'", '"', "\\", "\n", " " * 200, "%s", "{0}", "\\u0000", "٣", "𝟛", "½", "²",
]  # fmt: skip
TEXT = st.text(max_size=30)
PIECES = st.sampled_from(NASTY) | TEXT


@st.composite
def spliced(
    draw: st.DrawFn, base: st.SearchStrategy[str], pieces: st.SearchStrategy[str] = PIECES, most: int = 5
) -> str:
    """A text with parts of it replaced by pieces, or repeated."""
    text = draw(base)
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(text)))
        end = at + draw(st.sampled_from([0, 0, 1, 2, 5, 20, 100]))
        text = text[:at] + draw(pieces) * draw(st.sampled_from([1, 1, 1, 2, 50])) + text[end:]
    return text


def joined(*words: str, most: int = 12) -> st.SearchStrategy[str]:
    """Words of a language one after another, with others between them."""
    return st.lists(st.sampled_from(words) | PIECES, max_size=most).map("".join)


def as_bytes(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """UTF-8 as the characters of its bytes, sometimes broken; halves of surrogate pairs as they would come."""
    raw = texts.map(lambda text: text.encode("utf-8", "surrogatepass").decode("latin-1"))
    return raw | spliced(raw, st.binary(max_size=6).map(lambda data: data.decode("latin-1")), 2)


# -- TOML --------------------------------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.sampled_from(
        ["1" + "0" * 5000, "0x" + "f" * 400, "inf", "-nan", "true", "1979-05-27T07:32:00Z", "07:32:00", '""']
    ),
    st.sampled_from(["[" * n + "]" * n for n in (1, 50, 400, 3000)]),
    st.sampled_from(["{a=" * n + "1" + "}" * n for n in (1, 50, 400)]),
    st.lists(st.integers(0, 2**70), max_size=4).map(str),
    st.text(max_size=20).map(json.dumps),
    st.sampled_from(["../x", "\x00", "/etc/passwd", "a" * 5000, "{question}", "(" * 200, "(a+)+$", "file.py:f"]).map(
        json.dumps
    ),
)
FIELDS = [
    f"{section}.{name}"
    for section, field in Recipe.model_fields.items()
    if hasattr(field.annotation, "model_fields")
    for name in field.annotation.model_fields  # type: ignore[union-attr]
]
KEYS = st.sampled_from(FIELDS) | st.sampled_from(
    ["about", "name", "model", "train", "x." * 400 + "x", '""', '"\\u0000"']
)
LINES = st.tuples(KEYS, VALUES).map(" = ".join)
SHIPPED = st.sampled_from([path.read_text(encoding="utf-8") for path in sorted(RECIPES.glob("*.toml"))])
HEADERS = st.sampled_from(["[train]", "[[train]]", "[model]", "[a.b.c]", "[" + "a." * 300 + "a]", "# x", ""])
RECIPE = as_bytes(st.lists(LINES | HEADERS, max_size=8).map("\n".join) | spliced(SHIPPED, LINES | PIECES))
SETTING = st.tuples(KEYS, VALUES | TEXT).map("=".join) | spliced(st.just("train.steps=3"))
STUDY_TEXT = (
    'recipe = "demo"\nseeds = [0, 1]\nreference = "a"\n[arms.a]\nset = { train.steps = 3 }\n[arms.b]\nabout = "x"\n'
    '[[contrasts]]\nname = "c"\na = { arm = "a" }\nb = { arm = "b", at = { questions = 10 } }\n'
)
STUDY = as_bytes(spliced(st.just(STUDY_TEXT), LINES | HEADERS | PIECES))

# -- rows --------------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
CELLS = st.sampled_from(["7", "1/2", "x+1", "", " ", "0.10", "a,b", '"q"', "1e400", "٣"]) | TEXT
JSON_ROWS = st.one_of(
    st.fixed_dictionaries({"question": CELLS | JSON, "answer": CELLS | JSON}).map(json.dumps),
    st.fixed_dictionaries({"question": CELLS, "answer": CELLS, "id": CELLS | JSON}).map(json.dumps),
    JSON.map(json.dumps),
    st.sampled_from(
        ['{"question": "q", "question": "r", "answer": "1"}', "[" * 2000, '{"a":' * 2000, '{"question": NaN, "answer": 1}',
         '{"question": "\\ud800", "answer": "1"}', '{"question": "q", "answer": ' + "9" * 5000 + "}", "{}", "[1]", "\x00"]
    ),
)  # fmt: skip
CSV_ROWS = st.lists(CELLS, min_size=1, max_size=3).map(
    lambda cells: ",".join(f'"{c}"' if "," in c else c for c in cells)
)
HEADER = st.sampled_from(
    ["question,answer", "question,answer,id", "question, answer ", "a,a", "", "x", ",".join(["c"] * 500)]
)
CSV = st.tuples(HEADER, st.lists(CSV_ROWS, max_size=6)).map(lambda parts: "\n".join([parts[0], *parts[1]]))
JSONL = spliced(st.lists(JSON_ROWS, max_size=6).map("\n".join), most=2)


@functools.cache
def _parquet() -> str:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table({"question": ["q", "r"], "answer": ["1", "2"], "extra": [[1], None]}), out)
    return out.getvalue().decode("latin-1")


RAW = st.binary(max_size=8).map(lambda data: data.decode("latin-1"))
FILES = st.one_of(
    st.fixed_dictionaries({"suffix": st.sampled_from([".jsonl", ".json", ".ndjson"]), "content": as_bytes(JSONL)}),
    st.fixed_dictionaries({"suffix": st.just(".csv"), "content": as_bytes(spliced(CSV, most=2))}),
    st.fixed_dictionaries({"suffix": st.just(".parquet"), "content": spliced(st.builds(_parquet), RAW, 3)}),
)
ROWS = st.tuples(FILES, st.sampled_from(["exact", "numeric"]), st.sampled_from(["yes", ""])).map(
    lambda parts: parts[0] | {"grader": parts[1], "skip": parts[2]}
)
ANSWER_FILE = as_bytes(
    spliced(
        st.lists(
            st.fixed_dictionaries({"gold": CELLS | JSON, "prediction": CELLS | JSON}).map(json.dumps) | JSON_ROWS,
            max_size=5,
        ).map("\n".join),
        most=2,
    )
)

# -- rounds ------------------------------------------------------------------------------------------------------------

SCAFFOLD = (
    "<reasoning>", "</reasoning>", "<answer>", "</answer>", "<think>", "</think>", "<note>", "</note>", "< Answer >", "<",
    "answer>", "<ans<answer>wer>", "\\boxed{", "}", "\\boxed{7}", "<end>", "<user>", "<model>", "<system>", "<pad>", "<e",
    "nd>", "<END>", " Current round: 2 of 3.", "Current round is the final (3 of 3) round. Provide a final answer.",
    'Progress in round 1: "', "Round 3/3, final.", "Round 1/3.", 'Note 2: "8"', "Current", "round", ":", "of", "final",
    "Progress", "in", "Note", "\n", " ", "\t", "\u00a0", "{note}", "{question}", "{round}", "300", "x" * 50, "1, 2, 3",
    "ﬁnal", "Ⅳ", "ｒound", "\u200b", "\u0130", "K", "\u017f",
)  # fmt: skip
WORDING = st.sampled_from(["default", "all", "compact"])
RESPONSE = st.fixed_dictionaries(
    {"wording": WORDING, "text": joined(*SCAFFOLD, most=20), "truncated": st.booleans(), "final": st.booleans()}
)
QUESTION = st.fixed_dictionaries({"wording": WORDING, "text": joined(*SCAFFOLD)})

# -- answers -----------------------------------------------------------------------------------------------------------

NUMBERS = ("1", "-", "+", ".", ",", "/", "%", "$", "e", "^", "1,000", "\\frac{1}{2}", "\\frac", "{", "}", "0", " ", "°", "5",
           "cm", "and", "million", "\\text{ cm}", "−", "\\!", "½", "٣", "𝟛", "3", "e400", "1e300", "\n", "(", ")", "=")  # fmt: skip
LATEX = (*NUMBERS, "x", "\\sqrt{", "^{", "_", "\\pi", "\\infty", "\\cup", "[", "]", "(", "\\{", "\\}", "\\pm", "\\sin", "\\le",
         "<", ">", "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\\\", "!", "\\cdot", "\\int", "\\sum", "9^{9^{9", "**", "_2",
         "\\text{", "\\mathrm{", "\\left", "\\right", "\\boxed{", "|", "\\log", "A", "(B)", "even", "\\ldots", "10!", "\\binom")  # fmt: skip
GOLD = st.sampled_from(
    ["5", "1/2", "x+1", "(1, 2)", "\\{1, 2\\}", "x > 2", "\\frac{\\pi}{3}", "even", "(B)", "10_2", "\\sqrt{2}"]
)
SIMPLE = st.tuples(joined(*NUMBERS), joined(*NUMBERS)).map(list) | st.tuples(TEXT, TEXT).map(list)
MATHS = st.tuples(GOLD | joined(*LATEX, most=6), joined(*LATEX)).map(list)
ASSERTS = ("assert ", "f(2)", " == ", "3", "[1, 2]", "{", "}", "(", ")", "None", " is ", "math.isclose(", "sorted(", "float('inf')",
           "set(", "1e5", "lambda: 1", "__import__('os')", "f(f(1))", "'x'", "-", "*", "not ", ", rel_tol=1e-9", "0x", "9" * 50)  # fmt: skip
TESTS = st.lists(joined(*ASSERTS, most=8) | JSON | st.just("assert f(2) == 3"), max_size=4)
GOLD_TESTS = st.fixed_dictionaries(
    {"tests": TESTS}, optional={"entry_point": st.just("f") | JSON, "solution": TEXT | JSON}
)
PROGRAM_TESTS = st.tuples(
    spliced(GOLD_TESTS.map(json.dumps), most=1), joined("```python\n", "```", "f", "def f(x):", "\n")
).map(list)
KINDS = st.sampled_from(["int", "float", "complex", "bytes", "list", "tuple", "set", "dict", "x"])
LEAVES = st.sampled_from(["0x1", "-0x0", "1.0", "nan", "inf", "1e400", "00", "", "0x" + "f" * 99, "zz"]) | TEXT
REPORTED = st.recursive(
    st.none() | st.booleans() | LEAVES | st.integers() | st.tuples(KINDS, LEAVES).map(list),
    lambda inner: (
        st.tuples(KINDS, st.lists(inner, max_size=3)).map(lambda p: [p[0], *p[1]]) | st.lists(inner, max_size=3)
    ),
    max_leaves=12,
)
LINES_OF_PYTHON = (
    "def f(x): return 3\n", "def f(x): return x + 1\n", "while True: pass\n", "import os\n", "os._exit(0)\n", "raise SystemExit\n",
    "import sys; sys.stdout.write('[\"value\", [\"int\", \"0x3\"]]\\n')\n", "print('x' * 10**7)\n", "[0] * 10**10\n", "import ctypes\n",
    "sys.setrecursionlimit(10**9)\n", "def f(x): return f(x)\n", "f = lambda *a: 3\n", "class f: pass\n", "os.fork()\n", "open('/etc/passwd')\n",
    "os.write(1, b'x' * 99)\n", "os.close(1)\n", "import threading\n", "import signal; signal.pause()\n", "__builtins__ = {}\n", "json = None\n",
    "sys.modules.clear()\n", "os.kill(os.getppid(), 9)\n", "os.kill(1, 9)\n", "def f(x): return type('I', (int,), {'__eq__': lambda a, b: True})(7)\n",
    "def f(x): return 9**9**9\n", "del f\n", "\x00", "(" * 500, "async def f(x): return 3\n", "import socket; socket.socket()\n",
)  # fmt: skip
SANDBOXED = st.lists(st.sampled_from(LINES_OF_PYTHON) | TEXT, max_size=4).map("".join)
VERILOG = ("a", "b", "y", " ", "~", "&", "|", "^", "(", ")", "&&", "||", "==", "!=", "?", ":", "!", "~^", "1'b0", "1'b1", "0", "1",
           "module m(input a, b, output y);", "assign y = ", ";", "endmodule", "y = ", "```verilog\n", "```", "`define", "$display", "===",
           "initial", "#1", "(*", "*)", "wire", "reg", "always @(*)", "begin", "end", "case", "1'bx", "/*", "*/", "//", "\\esc ", "\n")  # fmt: skip
CIRCUITS = st.fixed_dictionaries({"text": joined(*VERILOG, most=20)})

# -- terminal and weights ----------------------------------------------------------------------------------------------

TERMINAL = joined(
    "\x1b[31m", "\x1b]8;;http://x\x07", "\x9b2J", "\r", "\t", "\n", "\x08", "\u202e", "[red]", "\x7f", "\\x1b", "a"
)


def _headed(parts: tuple[str, int | None, bytes]) -> str:
    head, length, rest = parts
    data = head.encode("utf-8", "surrogatepass")
    return ((len(data) if length is None else length).to_bytes(8, "little") + data + rest).decode("latin-1")


HONEST = _headed(('{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}', None, bytes(24)))
HEAD = JSON.map(json.dumps) | st.fixed_dictionaries(
    {
        "a": st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "I64", "X", "BOOL"]),
                "shape": st.lists(st.sampled_from([0, 1, 2, -1, 2**40, 2**63, 2**64]), max_size=4),
                "data_offsets": st.lists(st.sampled_from([0, 4, 8, 24, -8, 2**40, 2**63]), min_size=1, max_size=3),
            }
        )
    }
).map(json.dumps)
LENGTHS = st.none() | st.sampled_from([0, 1, 7, 2**20, 2**31, 2**40, 2**63, 2**64 - 1])
WEIGHTS = spliced(st.just(HONEST), RAW, 3) | st.tuples(HEAD, LENGTHS, st.binary(max_size=32)).map(_headed)

INPUTS: dict[str, st.SearchStrategy[Any]] = {
    "recipe": RECIPE,
    "setting": SETTING,
    "study": STUDY,
    "rows": ROWS,
    "table": FILES,
    "answer_file": ANSWER_FILE,
    "response": RESPONSE,
    "question": QUESTION,
    "simple": SIMPLE,
    "mathematics": MATHS,
    "program_tests": PROGRAM_TESTS,
    "reported": REPORTED,
    "sandboxed": SANDBOXED,
    "circuits": CIRCUITS,
    "terminal": TERMINAL,
    "weights": WEIGHTS,
}
