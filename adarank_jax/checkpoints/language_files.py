"""The files around the weights of an exported language model: sizes and tokenizer.

The tokenizer of the base is taken byte for byte, and its config.json as far as it stays
true.
"""

from collections.abc import Sequence

from adarank_jax import errors
from adarank_jax.checkpoints import formats, model_folder
from adarank_jax.checkpoints.language import LanguageCheckpoint


def config(
    base: LanguageCheckpoint,
    dtype: str | None = None,
    class_names: Sequence[str] | None = None,
) -> bytes:
    """Returns config.json for the class of transformers that an export is.

    Args:
        base: checkpoint that is exported.
        dtype: that its weights are rounded to; None if they are not.
        class_names: of a task; None for the bare encoder.

    Raises:
        InputError: a GPT-2 with a head has no token to pad with, or the file is a link
            that leads out of its folder.
    """
    file = base.folder / "config.json"
    content, values = model_folder.read_inside(file), formats.read_json(file)
    own, values = values, model_folder.without_name(values)
    if dtype is not None:
        values.pop("torch_dtype", None)
        values["dtype"] = dtype
    is_whole = class_names is not None
    values["architectures"] = [base.layout._replace(has_head=is_whole).model]
    if is_whole:
        values["num_labels"] = len(class_names)
        values["id2label"] = {str(i): name for i, name in enumerate(class_names)}
        values["label2id"] = {name: i for i, name in enumerate(class_names)}
        if base.family == "gpt2":
            values["pad_token_id"] = _padding_id(base, values)
    return content if values == own else model_folder.to_json(values)


def _padding_id(base, values):
    """Returns the token that GPT-2 pads with: its own, or else the end of a text."""
    found = values.get("pad_token_id")
    found = values.get("eos_token_id", 50256) if found is None else found
    if not isinstance(found, int) or not 0 <= found < base.config["vocabulary_size"]:
        raise errors.InputError(
            "E143",
            f"it has neither 'pad_token_id' nor 'eos_token_id' that is a token, got "
            f"{found!r}; a head looks at the last token that is no padding",
            where=f"`{base.folder / 'config.json'}`",
            remedy="put one of them there",
        )
    return found


def tokenizer(base: LanguageCheckpoint) -> dict[str, bytes]:
    """Returns the files of the tokenizer by name, byte for byte.

    Args:
        base: checkpoint that is exported.

    Raises:
        InputError: a file is a link that leads out of its folder.
    """
    places = [base.folder / name for name in _TOKENIZER]
    return {p.name: model_folder.read_inside(p) for p in places if p.is_file()}


_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json"),
)
