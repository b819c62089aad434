"""Estimators and intervals: pass@k, paired seeds, components of variance."""
