"""Devices, strictness and shape checks for every test.

XLA compiles with few optimisations, because most of the time goes to compilation.
"""

import os

os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

# Commands that tests start keep nothing in the home of whoever runs the tests.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

import hypothesis
import jax
from jaxtyping import install_import_hook

collect_ignore_glob = ["data/make_*.py"]  # they record data with torch

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_captured_constants_warn_bytes", 1_000_000)
install_import_hook("adarank_jax", "beartype.beartype")

hypothesis.settings.register_profile(
    "adarank", max_examples=20, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("adarank")
