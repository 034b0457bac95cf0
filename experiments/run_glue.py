"""Merges text classifiers of one language model by AdaRank, compares, and exports.

    python -m experiments.run_glue                               # embedded texts
    python -m experiments.run_glue --preset roberta-cart-adarank     # a table row
    python -m experiments.run_glue my_merge.yaml                 # your own experts
    python -m experiments.run_glue my_merge.yaml --plan          # check, change nothing

BERT, RoBERTa and GPT-2 with heads for sequence classification. Single values are
changed behind the file or preset: `adaptation.num_steps=1000`. Labels of the test
texts, where there are any, are used for the table only. The same command on the same
run folder resumes where it stopped.
"""

import dataclasses
import sys
from typing import Any

from adarank_jax.adaptation import hosts
from experiments import (
    cli,
    compile_cache,
    glue_suite,
    language_exporting,
    run,
    text_presets,
)
from experiments.run import Kind
from experiments.text_config import TextMergeConfig


@dataclasses.dataclass(frozen=True)
class Options(run.Options):
    """Merges text classifiers by AdaRank; writes table, metrics and the model."""

    preset: str = text_presets.DEMO
    """A run by name, if no file is given: `roberta-cart-adarank`, say."""


def main(options: Options) -> None:
    """Runs one configuration from top to bottom.

    Args:
        options: of the command.
    """
    run.main(options, KIND)


def facts(config: TextMergeConfig) -> dict[str, Any]:
    """Lists what is written beside the rows of a table.

    Args:
        config: of the run.
    """
    return {"max_length": config.max_length}


KIND = Kind(
    config=TextMergeConfig,
    presets=text_presets.all_presets,
    configure=text_presets.configure,
    check=glue_suite.check,
    facts=facts,
    export=language_exporting.write,
    unit="texts",
    unmade=text_presets.unmade,
)


if __name__ == "__main__":
    compile_cache.enable()
    cli.run(main, Options, run.in_order(sys.argv[1:]), hosts.leave)
