"""Timings side by side with PyTorch; run from a checkout, with the extra `bench`."""
