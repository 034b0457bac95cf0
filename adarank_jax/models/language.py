"""The families of text encoders: what a run must know of each, in one table."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from adarank_jax.models import bert, gpt2, roberta, sequence_heads, transformer


@dataclasses.dataclass(frozen=True)
class Family:
    """One family of text encoders.

    Attributes:
        name: `model_type` of its ``config.json``.
        config_class: sizes of an encoder.
        module_class: takes a config; maps a batch of texts to features.
        is_decomposed: `(path, leaf)`; the matrices that AdaRank decomposes.
        is_merged: `(path, leaf)`; False at what stays that of the origin.
        classify: `(features, head)`; the logits of one task.
        check_head: `(head, width, name)`; raises if a head does not fit.
    """

    name: str
    config_class: type
    module_class: type[nn.Module]
    is_decomposed: Callable[[str, Any], bool]
    is_merged: Callable[[str, Any], bool]
    classify: Callable[[Any, Any], Any]
    check_head: Callable[[Any, int, str], None]


def family(name: str) -> Family:
    """Returns a family by the `model_type` of a ``config.json``.

    Raises:
        KeyError: there is no such family; the message has the nearest name.

    Examples:
        >>> family("roberta").module_class.__name__
        'Roberta'
    """
    return transformer.named(name, FAMILIES)


FAMILIES = {
    "bert": Family(
        "bert",
        bert.BertConfig,
        bert.Bert,
        bert.is_decomposed,
        bert.is_merged,
        sequence_heads.linear_logits,
        sequence_heads.check_bert_head,
    ),
    "roberta": Family(
        "roberta",
        roberta.RobertaConfig,
        roberta.Roberta,
        roberta.is_decomposed,
        roberta.is_merged,
        sequence_heads.roberta_logits,
        sequence_heads.check_roberta_head,
    ),
    "gpt2": Family(
        "gpt2",
        gpt2.Gpt2Config,
        gpt2.Gpt2,
        gpt2.is_decomposed,
        gpt2.is_merged,
        sequence_heads.linear_logits,
        sequence_heads.check_gpt2_head,
    ),
}
