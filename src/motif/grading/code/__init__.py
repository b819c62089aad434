"""Python programs, judged by unit tests in a sandbox."""
