"""Merges experts of one CLIP model by AdaRank, compares, and exports the result.

    python -m experiments.run_vit                                # embedded suite
    python -m experiments.run_vit --preset vit-b32-8-cart-adarank    # a table row
    python -m experiments.run_vit my_merge.yaml                  # your own experts
    python -m experiments.run_vit my_merge.yaml --plan           # check, change nothing

Single values are changed behind the file or preset: `adaptation.num_steps=1000`.
Labels of the test images, where there are any, are used for the table only. The same
command on the same run folder resumes where it stopped.
"""

import dataclasses
import sys

from adarank_jax.adaptation import hosts
from experiments import (
    cli,
    clip_suite,
    compile_cache,
    embedded_suite,
    exporting,
    presets,
    run,
)
from experiments.image_config import EMBEDDED, ImageMergeConfig
from experiments.run import Kind
from experiments.suite import Inputs


@dataclasses.dataclass(frozen=True)
class Options(run.Options):
    """Merges experts by AdaRank; writes table, metrics, figures and the model."""

    preset: str = EMBEDDED
    """A run by name, if no file is given: `vit-b32-8-cart-adarank`, say."""


def main(options: Options) -> None:
    """Runs one configuration from top to bottom.

    Args:
        options: of the command.
    """
    run.main(options, KIND)


def check(config: ImageMergeConfig, may_fetch: bool = True) -> Inputs:
    """Checks weights, heads and images, wherever they come from.

    Args:
        config: of the run.
        may_fetch: whether files may be fetched from the Hub.
    """
    if config.base == EMBEDDED:
        return embedded_suite.check(config)
    return clip_suite.check(config, may_fetch)


KIND = Kind(
    config=ImageMergeConfig,
    presets=presets.all_presets,
    configure=presets.configure,
    check=check,
    facts=lambda config: {"qkv": config.qkv, "prompts": config.prompts},
    export=exporting.write,
    unit="images",
)


if __name__ == "__main__":
    compile_cache.enable()
    cli.run(main, Options, run.in_order(sys.argv[1:]), hosts.leave)
