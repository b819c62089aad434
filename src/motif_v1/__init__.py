"""The verifiers plugin id `motif-v1`: verifiers looks for a top-level module that exports these classes."""

from motif.integrations.verifiers import MotifEnv, MotifHarness, MotifTaskset

__all__ = ["MotifEnv", "MotifHarness", "MotifTaskset"]
