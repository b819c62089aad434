"""Equal mathematics."""
