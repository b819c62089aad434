"""Hosts whose pins exclude each other: each file runs in an environment of its own (`make test-hosts`)."""
