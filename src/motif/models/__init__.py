"""Models: what is loaded, how it computes, and its weights."""
