"""What a run of text classifiers is configured by: texts, heads, lengths and metrics.

Where nothing is said, settings are those that the authors took for RoBERTa-base
(`CART`); a run of GPT-2 that keeps them is warned, and so is one of BERT, of which the
authors have none.
"""

import dataclasses
import operator
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import pydantic
import pydantic.dataclasses

from adarank_jax import errors
from adarank_jax.adaptation import loop
from adarank_jax.data import glue
from adarank_jax.data.class_order import plain
from adarank_jax.errors import Message
from experiments.merge_config import Export, MergeConfig, Method, Strict
from experiments.suite import Metric

LEAGUES: dict[str, Metric] = {"AdaRank": "matthews", "FusionBench": "accuracy"}
"""Metric of CoLA in the tables of a league."""


class CartRun(NamedTuple):
    """How the authors ran AdaRank from CART on one model.

    Attributes:
        coefficient: at the start.
        rank_ratio: at the start.
        learning_rate: of the run.
    """

    coefficient: float
    rank_ratio: float
    learning_rate: float


CART = {"roberta": CartRun(1.6, 0.04, 1e-4), "gpt2": CartRun(1.3, 0.01, 5e-5)}
"""By family. Where nothing is said, RoBERTa's are taken."""


def data_from_text(text: str) -> dict[str, str]:
    """Tells what a bare string says of texts: a task of GLUE, or a path.

    Args:
        text: of the configuration.

    Examples:
        >>> data_from_text("cola"), data_from_text("mine.tsv")
        ({'dataset': 'cola'}, {'csv': 'mine.tsv'})
        >>> data_from_text("glue/cola"), data_from_text("org/name")
        ({'dataset': 'cola'}, {'parquet': 'org/name'})
    """
    if text.startswith("glue/") and glue.is_task(text):
        return {"dataset": text.removeprefix("glue/")}
    for place, endings in (("csv", (".csv", ".tsv")), ("jsonl", (".jsonl", ".json"))):
        if text.lower().endswith(endings):
            return {place: text}
    return {"parquet" if "/" in text or "." in text else "dataset": text}


_COLUMNS = ("columns", "label_column")
_PLACES = {
    "dataset": ("source", "split", "quotes"),
    "csv": (*_COLUMNS, "quotes"),
    "jsonl": _COLUMNS,
    "parquet": (*_COLUMNS, "split", "subset"),
}
"""Options of each place that texts come from."""


class TextData(Strict):
    """Where the texts of a task come from: exactly one of the first four.

    Attributes:
        dataset: a task of GLUE, for example ``cola``; its size is checked.
        csv: a file with the names of its columns in line 1; ``.tsv`` has tabs.
        jsonl: a file with one JSON object a line.
        parquet: a file, a folder of files, or a data set on the Hub
            ``org/name[@revision]``.
        columns: of the texts: one, or two for pairs.
        label_column: of class numbers or names; `label` by default, if there is one.
        quotes: whether `"` around a field of a CSV file may hold commas and line ends;
            so it is by default, but not in TSV files of a registered data set.
        split: of a parquet data set, `validation` by default; of GLUE, that on which
            the papers judge.
        subset: of a parquet data set that holds several.
        source: where a registered data set is looked for: in `data_dir`, among those
            that TensorFlow Datasets prepared there, on the Hub, or in this order.
    """

    dataset: str | None = None
    csv: pathlib.Path | None = None
    jsonl: pathlib.Path | None = None
    parquet: str | None = None
    columns: tuple[str, ...] = ("text",)
    label_column: str | None = None
    quotes: bool | None = None
    split: str | None = None
    subset: str | None = None
    source: Literal["auto", "local", "tfds", "hub"] = "auto"

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """Takes a bare string as the name of a registered data set or as a path."""
        return data_from_text(value) if isinstance(value, str) else value

    @pydantic.field_validator("columns", mode="before")
    @classmethod
    def _one_column(cls, value: Any) -> Any:
        """Takes a bare string as the name of the only column."""
        return (value,) if isinstance(value, str) else value

    @pydantic.model_validator(mode="after")
    def _one(self) -> "TextData":
        """Checks that one place is named, with no option of another."""
        named = [place for place in _PLACES if getattr(self, place) is not None]
        if len(named) != 1:
            raise errors.UsageError(
                "E013",
                f"name exactly one of {', '.join(_PLACES)}, got {named or 'none'}",
            )
        wrong = sorted(self.model_fields_set - {named[0], *_PLACES[named[0]]})
        wrong = [name for name in wrong if getattr(self, name) is not None]
        if wrong:
            found = f"{named[0]} has no {' and no '.join(wrong)}"
            raise errors.UsageError("E013", found, remedy="leave it out")
        if self.label_column in self.columns:
            raise errors.UsageError(
                "E013",
                f"`label_column` is {self.label_column!r}, which `columns` names as "
                "texts",
                remedy="name the column of the classes, or leave it out if there is "
                "none",
            )
        if len(self.columns) not in (1, 2) or len({*self.columns}) < len(self.columns):
            raise errors.UsageError(
                "E011",
                "`columns` must name one column of texts, or two different ones for "
                f"pairs, got {list(self.columns)}",
            )
        return self

    @pydantic.model_serializer(mode="wrap")
    def _own(self, handler: Any) -> dict[str, Any]:
        """Writes only the options that the place has, so that they can be read back."""
        values = handler(self)
        (place,) = [name for name in _PLACES if values.get(name) is not None]
        own = (place, *_PLACES[place])
        return {name: values[name] for name in own if name in values}


class TextExpert(Strict):
    """A fine-tuned checkpoint with its head and unlabelled texts.

    Attributes:
        model: a folder, a file, or ``org/name[@revision][:path/in/repository]``.
        data: its texts; a string is a task of GLUE or a path.
        head: a safetensors file with the classifier, named as in a checkpoint; None to
            take that of `model`.
        classes: names, in the order of the rows of the head; by default those that the
            checkpoint states.
        metric: by which the task is judged; that of the data set by default.
    """

    model: str
    data: TextData
    head: pathlib.Path | None = None
    classes: tuple[str, ...] | None = None
    metric: Metric | None = None

    @pydantic.model_validator(mode="after")
    def _classes(self) -> "TextExpert":
        """Checks the number of classes."""
        if self.classes is not None and len(self.classes) < 2:
            raise errors.UsageError(
                "E304",
                f"`classes` must name at least two classes, got {len(self.classes)}",
                remedy="name all classes, in the order of the rows of the head",
            )
        return self


class TextExport(Export):
    """What is written for others to load.

    Attributes:
        enabled: write `export/` at all.
        per_task_copies: also the whole model once a task, as transformers loads it.
        dtype: of the merged weights; None for the base's.
        max_shard_size: bytes of a weight file, at most.
    """

    per_task_copies: bool = False

    def num_copies(self, num_tasks: int) -> int:
        """Counts how often the merged weights are written.

        Args:
            num_tasks: of the run.
        """
        return int(self.enabled) * (1 + num_tasks * self.per_task_copies)


@dataclasses.dataclass(frozen=True)
class _Adaptation(loop.AdaptationConfig):
    """How the variables are trained; the defaults are the authors' for RoBERTa."""

    num_steps: int = 5_000
    batch_size: int = 8
    learning_rate: float = CART["roberta"].learning_rate


TextAdaptation = pydantic.dataclasses.dataclass(
    _Adaptation, config=pydantic.ConfigDict(extra="forbid"), frozen=True
)


def with_start(method: Method) -> Method:
    """Fills in the authors' coefficient and rank ratio for CART on RoBERTa-base.

    Args:
        method: any; one that says both, or that does not start at the average, stays
            as it is.

    Returns:
        The method; `model_fields_set` names what it said itself.

    Examples:
        >>> with_start(Method(name="adarank", origin="cart")).rank_ratio
        0.04
    """
    if "cart" not in (method.name, method.origin):
        return method
    missing = {
        name: getattr(CART["roberta"], name)
        for name in ("coefficient", "rank_ratio")
        if getattr(method, name) is None
    }
    values = {name: getattr(method, name) for name in Method.model_fields}
    stated = method.model_fields_set
    return Method.model_construct(stated, **values | missing)


class TextMergeConfig(MergeConfig):
    """A whole run of text classifiers, beside the fields of every `MergeConfig`.

    Attributes:
        experts: by name of the task.
        adaptation: steps, batch and rate of adapted methods.
        export: what is written for others to load.
        max_length: tokens of a text or pair; longer ones are cut.
        buckets: lengths that batches are padded to, one compiled program each;
            `max_length` is always one of them.
    """

    shorthand: ClassVar[Mapping[str, Callable[[str], dict[str, Any]]]] = {
        **MergeConfig.shorthand,
        "data": data_from_text,
    }

    experts: dict[str, TextExpert]
    method: Method = with_start(Method())
    adaptation: TextAdaptation = TextAdaptation()  # pyright: ignore
    export: TextExport = TextExport()
    max_length: Annotated[int, pydantic.Field(gt=0)] = 128
    buckets: tuple[Annotated[int, pydantic.Field(gt=0)], ...] = (32, 64, 128)

    @pydantic.field_validator("method")
    @classmethod
    def _method_start(cls, method: Method) -> Method:
        """Fills in the authors' start for RoBERTa."""
        return with_start(method)

    @pydantic.field_validator("compare")
    @classmethod
    def _compare_start(cls, compare: tuple[Method, ...]) -> tuple[Method, ...]:
        """Fills in the authors' start for RoBERTa."""
        return tuple(map(with_start, compare))

    def check_own(self) -> None:
        """Checks the metric of CoLA against the league.

        Raises:
            UsageError: they do not fit.
        """
        league = None if self.published is None else self.published.league
        if league not in LEAGUES:
            return
        for name, expert in self.experts.items():
            of_glue = _is_cola(expert.data.dataset or "")
            found = expert.metric or ("matthews" if of_glue else "accuracy")
            if (of_glue or _is_cola(name)) and found != LEAGUES[league]:
                raise errors.UsageError(
                    "E013",
                    f"`experts.{name}.metric` must be {LEAGUES[league]} in the league "
                    f"{league}, got {found}",
                    remedy="the other league's numbers are others, so state that "
                    "metric, or drop the published number: `published=null`",
                )


def misfits(config: TextMergeConfig, family: str | None) -> Iterator[Message]:
    """Finds RoBERTa's settings where the authors took others.

    Args:
        config: of a run.
        family: of its models; None if it is not known.

    Yields:
        Warnings.
    """
    usual, own = CART["roberta"], CART.get(family or "")
    if family is None or own == usual:
        return
    start = "coefficient {0:g} and rank ratio {1:g}"
    instead, rate = f"and have no run of {family}", f"they have no run of {family}"
    if own is not None:
        instead = f"but {start.format(*own)} for {family}"
        rate = f"for {family} they took {own.learning_rate:g}"
    methods = {"method": config.method}
    methods |= {f"compare.{i}": each for i, each in enumerate(config.compare)}
    for where, method in methods.items():
        values = (method.coefficient, method.rank_ratio)
        is_usual = any(map(operator.eq, values, usual))
        if own is None:  # nobody knows better than who states both
            is_usual = not {"coefficient", "rank_ratio"} <= method.model_fields_set
        if "cart" in (method.name, method.origin) and is_usual:
            found = (
                f"the start of CART here is {start.format(*values)}. The authors took "
                f"{start.format(*usual)} for RoBERTa, {instead}"
            )
            yield Message("W013", found, where, remedy="state both to choose")
    is_adapted = any(method.is_adapted for method in methods.values())
    if is_adapted and config.adaptation.learning_rate == usual.learning_rate:
        found = f"{usual.learning_rate:g} is the authors' for RoBERTa; {rate}"
        yield Message("W013", found, "adaptation.learning_rate")


def _is_cola(name):
    """Tells whether a task or a data set is called CoLA, however it is spelt."""
    return plain(name).removeprefix("glue") == "cola"
