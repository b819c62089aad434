"""The model: loading it, its device and shape, its log-probabilities, its weights."""
