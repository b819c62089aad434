"""Sampling with the live weights of the policy, on one device."""
