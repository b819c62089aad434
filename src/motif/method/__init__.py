"""The method, in pure Python: round trees, prompts, answers, credit, keys of randomness."""
