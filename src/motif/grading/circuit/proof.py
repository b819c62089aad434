"""The proof that two netlists are equal: a Yosys script, and what its log says.

Combinational circuits: the miter of both has no input for which an output differs (`sat -prove`); an x bit equals only
x. With registers or latches, `clk2fflogic` makes the clock an ordinary input, so that another edge or another clock is
another circuit. Registers start in any state that their initial values allow, and resets are held for the given cycles.
From then on all inputs are free, and temporal induction (`sat -tempinduct`) shows that the outputs are equal for ever.
Where it does not, a later difference is looked for until the limit: in random runs (`simulation`), and in all runs of
growing length (bounded model checking).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from motif.grading.circuit import simulation
from motif.grading.circuit.netlist import Netlist
from motif.grading.circuit.yosys import PATIENCE, Yosys, YosysResult
from motif.grading.verdict import Grade

INDUCTION = 24  # steps, two to a clock cycle
DEEPEST = 100_000  # steps in which a later difference is looked for, if there is time
LONGEST_REASON = 200  # characters

_RESET_NAME = re.compile(r"(?:i_)?(?:a|s|sys_?|async_?|sync_?)?(?:rst|reset|clr|clear)(?P<low>_?[nb])?(?:_i)?", re.I)


def prove(
    yosys: Yosys,
    gold: Netlist,
    answer: Netlist,
    reset: Mapping[str, int],
    cycles: int,
    open_outputs: bool,
    limit: float,
) -> Grade:
    """Prove that the answer equals the gold, or find inputs for which it does not.

    Args:
        reset: the inputs that are held at these values for the first `cycles` clock cycles.
        open_outputs: whether an output of the gold that is x may be anything.
        limit: seconds of computing.
    """
    started = time.thread_time()
    options = "-enable_undef -set-def-inputs"
    if not (gold.has_state or answer.has_state):
        return _verdict(_run(yosys, gold, answer, f"sat {options} miter", f"sat {options}", open_outputs, limit), limit)
    options += " -set-init-def" + _held(gold, reset, cycles)
    possible = f"sat {options} -seq {max(1, 2 * cycles)} miter"
    proof = f"sat {options} -tempinduct-def -seq {2 * cycles} -maxsteps {INDUCTION}"
    run = _run(yosys, gold, answer, possible, proof, open_outputs, limit)
    grade = _verdict(run, limit)
    left = limit - (time.thread_time() - started)
    if "Reached maximum number of time steps" not in run.files["proof"] or left < 1:
        return grade
    # Neither proved nor refuted so far, but a difference may come later: look for it until the limit.
    if difference := _simulated(yosys, gold, answer, reset, 2 * cycles, open_outputs, left / 2):
        return Grade("wrong", difference[:LONGEST_REASON])
    left = max(1.0, limit - (time.thread_time() - started))
    search = f"sat {options} -tempinduct-baseonly -tempinduct-skip {INDUCTION} -seq {2 * cycles} -maxsteps {DEEPEST}"
    later = _verdict(_run(yosys, gold, answer, possible, search, open_outputs, left), limit)
    return later if later.verdict == "wrong" else grade


def _run(
    yosys: Yosys, gold: Netlist, answer: Netlist, possible: str, proof: str, open_outputs: bool, limit: float
) -> YosysResult:
    script = [
        *_miter(gold, answer, open_outputs),
        # From impossible constraints everything would follow.
        f"tee -o /box/possible {possible}",
        f"tee -o /box/proof {proof} -timeout {PATIENCE * limit:.0f} -show-inputs -show-outputs -prove trigger 0 miter",
    ]
    files = {"gold.il": gold.rtlil, "gate.il": answer.rtlil}
    return yosys.run("\n".join(script) + "\n", files, ("possible", "proof"), limit)


def _simulated(
    yosys: Yosys, gold: Netlist, answer: Netlist, reset: Mapping[str, int], held: int, open_outputs: bool, limit: float
) -> str:
    if open_outputs or simulation.has_open_values(gold, answer):
        return ""
    script = [*_miter(gold, answer, open_outputs), *simulation.SCRIPT, simulation.WRITE]
    files = {"gold.il": gold.rtlil, "gate.il": answer.rtlil, "techmap.v": yosys.techmap()}
    run = yosys.run("\n".join(script) + "\n", files, ("miter.aag",), limit)
    if run.ended != "ok":
        return ""
    graph = simulation.read_graph(run.files["miter.aag"])
    return simulation.find_difference(graph, gold.clocks, reset, held, limit)


def _miter(gold: Netlist, answer: Netlist, open_outputs: bool) -> list[str]:
    return [
        "read_rtlil /box/gold.il",
        "read_rtlil /box/gate.il",
        f"miter -equiv -make_outputs -flatten {'-ignore_gold_x ' if open_outputs else ''}gold gate miter",
        "hierarchy -top miter",
        *(["clk2fflogic"] if gold.has_state or answer.has_state else []),
    ]


def _verdict(run: YosysResult, limit: float) -> Grade:
    log = run.files["proof"]
    if "- model found: FAIL!" in log or "model found for base case: FAIL!" in log:
        return Grade("wrong", _counterexample(log)[:LONGEST_REASON])
    if run.ended == "time" or "TIMEOUT" in log:
        return Grade("ungraded", f"neither proved nor refuted in {limit:g} s")
    proved = "no model found: SUCCESS!" in log or "Induction step proven: SUCCESS!" in log
    if run.ended == "ok" and proved and "- model found:" in run.files["possible"]:
        return Grade("right")
    if "Reached maximum number of time steps" in log:
        return Grade("ungraded", f"neither proved by induction over {INDUCTION // 2} cycles nor refuted in {limit:g} s")
    return Grade("ungraded", f"Yosys ended with: {run.problems.strip() or run.ended}"[:LONGEST_REASON])


def guessed_reset(gold: Netlist) -> dict[str, int]:
    """The one-bit inputs that are named like a reset, with the active value that the name implies (rst_n: 0)."""
    named = [(name, _RESET_NAME.fullmatch(name)) for name, width in gold.ports("input") if width == 1]
    return {name: int(not match["low"]) for name, match in named if match}


def _held(gold: Netlist, reset: Mapping[str, int], cycles: int) -> str:
    held = ""
    for step in range(1, 2 * cycles + 1):
        for clock in gold.clocks:
            held += f" -set-at {step} in_{clock} {1 - step % 2}"
        for name, value in reset.items():
            held += f" -set-at {step} in_{name} {value}"
    return held


def _counterexample(log: str) -> str:
    """The inputs, and both values of the outputs that differ, in the last time step of the log's model."""
    values: dict[str, str] = {}
    step = ""
    for line in log.splitlines():
        match = re.match(r"\s+(?:(\d+)\s+)?\\(\S+)\s+\S+\s+\S+\s+([01x]+)\s*$", line)
        if match:
            step = match[1] or ""
            values[match[2]] = match[3]
    given = [f"{name[3:]}={value}" for name, value in values.items() if name.startswith("in_")]
    differ = [
        f"{name[5:]} is {values.get('gate_' + name[5:], '?')}, should be {value}"
        for name, value in values.items()
        if name.startswith("gold_") and value != values.get("gate_" + name[5:])
    ]
    return f"{f'in half cycle {step}, ' if step else ''}{' '.join(given)}: {'; '.join(differ)}"
