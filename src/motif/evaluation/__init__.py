"""Accuracy on held-out questions, and what notes are worth."""
