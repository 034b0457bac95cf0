"""Flax Linen encoders named after their checkpoints, and task heads."""
