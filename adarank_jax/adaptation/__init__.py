"""Test-time adaptation: the step, its sharding, the loop, evaluation, run folder."""
