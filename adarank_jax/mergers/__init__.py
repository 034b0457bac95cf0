"""Static merges, one file a published method, all of one signature.

A merger takes `(pretrained, finetuned, is_decomposed)` and keyword hyper-parameters
with published defaults, and returns parameters. None of them needs data.
"""

from adarank_jax.mergers.cart import cart
from adarank_jax.mergers.iso_c import iso_c
from adarank_jax.mergers.task_arithmetic import task_arithmetic
from adarank_jax.mergers.tsv_m import tsv_factors, tsv_m
from adarank_jax.mergers.weight_averaging import weight_averaging

MERGERS = {
    "weight_averaging": weight_averaging,
    "task_arithmetic": task_arithmetic,
    "cart": cart,
    "tsv_m": tsv_m,
    "iso_c": iso_c,
}

__all__ = [
    "MERGERS",
    "cart",
    "iso_c",
    "task_arithmetic",
    "tsv_factors",
    "tsv_m",
    "weight_averaging",
]
