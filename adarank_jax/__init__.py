"""Model merging by adaptive rank pruning (AdaRank) in JAX and Flax."""

__version__ = "0.1.0"
