"""The embedded demonstration model: a character-level arithmetic LM small enough to train on one CPU core."""

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
