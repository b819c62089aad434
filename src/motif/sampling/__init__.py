"""Samplers, and what grows and answers with them."""
