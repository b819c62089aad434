"""The embedded models: character-level, and small enough for one CPU core."""

from pathlib import Path

MODELS = {
    "embedded": Path(__file__).parent / "model",  # two-digit products
    "embedded-circuit": Path(__file__).parent / "circuit_model",  # truth tables to Verilog
    "embedded-read": Path(__file__).parent / "read_model",  # ledgers, a piece a round
}
