"""Equal mathematics: the rule, and the reading of LaTeX, quantities and intervals."""
