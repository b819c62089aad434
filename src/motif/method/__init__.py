"""The method: round trees, what the model is told and how it is read, rewards and credit. Pure: no torch."""
