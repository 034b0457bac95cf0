"""The method: pure functions on arrays and trees of arrays."""
