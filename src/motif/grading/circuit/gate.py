"""The gate between answers and Yosys: finds the Verilog in a text, and lets only harmless tokens through.

The gate is an allow-list. It takes comments out (some command a synthesiser: `// synopsys full_case`). It refuses by
name what could read a file, print, weaken the proof or hide a module: directives and macros, attributes, system tasks,
assertions and assumptions, escaped identifiers, strings, hierarchical names, x and z as values.
"""

from __future__ import annotations

import re

LONGEST = 20_000  # characters
DEEPEST = 100  # nesting of brackets

_TOKEN = re.compile(
    r"(?P<space>\s+|//[^\n]*|/\*.*?\*/|`timescale[^\n]*|`default_nettype[^\n]*|`resetall)"
    r"|(?P<number>(?:\d[\d_]*[ \t]*)?'[sS]?(?:[bB][ \t]*[01xXzZ?_]+|[oO][ \t]*[0-7xXzZ?_]+|[dD][ \t]*[0-9_]+"
    r"|[hH][ \t]*[0-9a-fA-FxXzZ?_]+|[01xXzZ](?!\w))|\d[\d_]*)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_$]*)"
    r"|(?P<call>\$[A-Za-z_]\w*)"
    r"|(?P<star>@[ \t]*\([ \t]*\*[ \t]*\)|@[ \t]*\*)"
    r"|(?P<mark><<<=?|>>>=?|<<=|>>=|<<|>>|===|!==|==|!=|<=|>=|&&|\|\||\*\*|~\^|\^~|~&|~\||\+\+|--|\+:|-:|[-+&|^*/%]="
    r"|[-+~!&|^*/%?:()\[\]{}<>=;,.#@'])",
    re.DOTALL,
)
_FENCE = re.compile(r"```[ \t]*(?:system)?verilog[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_MODULE = re.compile(r"(?<![\w$`\\])module(?![\w$])")
_DIRECTIVE = re.compile(r"`(?:include|define|undef|ifdef|ifndef|else|elsif|endif|line|pragma|celldefine|protect)\b.*")
_ATTRIBUTE = re.compile(r"\(\*[^()]*\*\)\s*$")
CALLS = {"$signed", "$unsigned", "$clog2", "$bits"}
_ALLOWED_WORDS = """
always always_comb always_ff always_latch and assign automatic begin bit buf byte case casex casez default else end
endcase endfunction endgenerate endmodule endtask enum for function generate genvar if initial input int integer
localparam logic longint module nand negedge nor not or output packed parameter posedge priority reg return shortint
signed struct task typedef unique unique0 unsigned void while wire xnor xor
"""
ALLOWED = frozenset(_ALLOWED_WORDS.split())
# Every other reserved word of IEEE 1800-2017; small circuits need none of them.
_REFUSED_WORDS = """
accept_on alias assert assume before bind bins binsof break bufif0 bufif1 cell chandle checker class clocking cmos
config const constraint context continue cover covergroup coverpoint cross deassign defparam design disable dist do
edge endchecker endclass endclocking endconfig endgroup endinterface endpackage endprimitive endprogram endproperty
endsequence endspecify endtable event eventually expect export extends extern final first_match force foreach forever
fork forkjoin global highz0 highz1 iff ifnone ignore_bins illegal_bins implements implies import incdir include inout
inside instance interconnect interface intersect join join_any join_none large let liblist library local macromodule
matches medium modport nettype new nexttime nmos noshowcancelled notif0 notif1 null package pmos primitive program
property protected pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
randsequence rcmos real realtime ref reject_on release repeat restrict rnmos rpmos rtran rtranif0 rtranif1 s_always
s_eventually s_nexttime s_until s_until_with scalared sequence shortreal showcancelled small soft solve specify
specparam static string strong strong0 strong1 super supply0 supply1 sync_accept_on sync_reject_on table tagged this
throughout time timeprecision timeunit tran tranif0 tranif1 tri tri0 tri1 triand trior trireg type union until
until_with untyped uwire var vectored virtual wait wait_order wand weak weak0 weak1 wildcard with within wor
"""
REFUSED = frozenset(_REFUSED_WORDS.split())
_OPENS, _CLOSES = {"(", "[", "{"}, {")": "(", "]": "[", "}": "{"}


class Refused(Exception):
    """The text may not reach Yosys; the message says why."""


def extract(text: str) -> str:
    """The Verilog in an answer: its last ```verilog block, else its last modules in a row, else all of it.

    Comments are taken out first, so that a module inside one is not an answer.

    Raises:
        Refused: a directive or an attribute stands before the modules, where it could change what they mean.
    """
    blocks = _FENCE.findall(text)
    if blocks:
        return str(blocks[-1]).strip()
    text = _COMMENT.sub(" ", text)
    end = text.rfind("endmodule")
    starts = [match.start() for match in _MODULE.finditer(text[: max(end, 0)])]
    if not starts:
        return text.strip()
    start = starts.pop()
    while starts and text[starts[-1] : start].rstrip().endswith("endmodule"):
        start = starts.pop()
    before = _DIRECTIVE.search(text[:start]) or _ATTRIBUTE.search(text[max(0, start - 200) : start])
    if before:
        raise Refused(f"before the module: {before.group()[:60]}")
    return text[start : end + len("endmodule")]


def is_module(text: str) -> bool:
    """Whether the text holds a module rather than a bare expression."""
    return re.search(r"\bmodule\b", text) is not None


def clean(text: str) -> str:
    """The text without comments, if all of its tokens are harmless.

    Raises:
        Refused: at the first token that is not.
    """
    if len(text) > LONGEST:
        raise Refused(f"too long: {len(text)} characters")
    if "\0" in text:
        raise Refused("a null character")
    kept: list[str] = []  # with the white space between the tokens
    seen: list[str] = []  # the tokens alone
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise Refused(_refusal(text, place))
        place = match.end()
        token = match.group()
        if match.lastgroup == "space":
            space = "\n" if "\n" in token or token[0] in "`/" else " "
            if kept and kept[-1].isspace():  # a comment after a space
                space = max(space, kept.pop(), key="\n".__eq__)
            kept.append(space)
            continue
        _check_word(str(match.lastgroup), token, seen)
        kept.append(token if match.lastgroup != "star" else "@*")
        seen.append(token)
    _check_nesting(seen)
    _check_values(seen)
    return "".join(kept)


def _refusal(text: str, place: int) -> str:
    start = text[place : place + 20].partition("\n")[0]
    if text.startswith("`", place):
        return f"a directive or macro: {start}"
    if text.startswith("\\", place):
        return f"an escaped identifier: {start}"
    if text.startswith('"', place):
        return f"a string: {start}"
    return f"a character that is not Verilog: {start!r}"


def _check_word(kind: str, token: str, seen: list[str]) -> None:
    before = seen[-1] if seen else ""
    if kind == "call" and token not in CALLS:
        raise Refused(f"the system task {token}")
    if kind == "word" and token in REFUSED:
        raise Refused(f"the keyword {token!r}")
    if token in ("===", "!=="):
        raise Refused(f"the operator {token}, which asks for x")
    if token == "*" and before == "(":
        raise Refused("an attribute (* ... *)")
    if token == "." and before not in ("(", ","):
        raise Refused("a hierarchical name")
    if token == "'" or (kind != "mark" and before == "'"):
        raise Refused("a cast or pattern '")
    if before == "#" and token != "(":
        raise Refused("a delay #")
    if token == "initial" and "#" in seen:
        raise Refused("an initial block beside # (a delay or parameters)")
    if token == "#" and "initial" in seen:
        raise Refused("an initial block beside # (a delay or parameters)")


def _check_nesting(seen: list[str]) -> None:
    stack: list[str] = []
    for token in seen:
        if token in _OPENS or token == "begin":
            stack.append(token)
        elif token in _CLOSES or token == "end":
            wanted = _CLOSES.get(token, "begin")
            if not stack or stack.pop() != wanted:
                raise Refused(f"unbalanced {token!r}")
        if len(stack) > DEEPEST:
            raise Refused(f"nested deeper than {DEEPEST}")
    if stack:
        raise Refused(f"unclosed {stack[-1]!r}")
    chain = longest = 0
    for token in seen:
        chain = chain + 1 if token in ("?", "~", "!", "-", "+", "else") else 0 if token == ";" else chain
        longest = max(longest, chain)
    if longest > 20 * DEEPEST:
        raise Refused("an expression that is too long")


def _check_values(seen: list[str]) -> None:
    """Refuse x and z as values: they may stand only in the labels of casez (z, ?) and casex (x, too)."""
    cases: list[str] = []
    depth = 0
    for place, token in enumerate(seen):
        if token in ("case", "casez", "casex"):
            cases.append(token)
        elif token == "endcase" and cases:
            cases.pop()
        depth += (token in _OPENS) - (token in _CLOSES)
        digits = token.partition("'")[2].lower() if "'" in token else ""
        if "x" in digits or "z" in digits or "?" in digits:
            within = cases[-1] if cases else ""
            label = (
                depth == 0
                and within in ("casez", "casex")
                and seen[place - 1] in (";", "end", "endcase", ")", ",")
                and seen[place + 1 : place + 2] in ([":"], [","])
            )
            if not label or ("x" in digits and within != "casex"):
                raise Refused(f"{token}: x and z are not values of a circuit")


def module_names(cleaned: str) -> list[str]:
    """The names of the modules in a cleaned text, in order.

    Raises:
        Refused: there is no module, a module without a name, or a name twice.
    """
    words = re.findall(r"[A-Za-z_][\w$]*|\S", cleaned)
    names = [words[place + 1] for place, word in enumerate(words[:-1]) if word == "module"]
    if not names or words.count("module") != words.count("endmodule") or words[-1] != "endmodule":
        raise Refused("no complete module")
    for name in names:
        if not is_identifier(name):
            raise Refused(f"a module named {name!r}")
        if names.count(name) > 1:
            raise Refused(f"two modules are named {name}")
    return names


def is_identifier(name: str) -> bool:
    """Whether this can name a module or a port."""
    return re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) is not None and name not in ALLOWED | REFUSED
