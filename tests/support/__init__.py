"""What several tests share: made-up runs and studies, servers, browsers, tiny models."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""
