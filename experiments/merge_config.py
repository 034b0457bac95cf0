"""What one run merges and how: the fields of `my_merge.yaml` and of every preset.

Unknown keys are refused; `read_config` says where a mistake is.
"""

import pathlib
import unicodedata
from typing import Annotated, Any, Literal

import pydantic
import pydantic.dataclasses

from adarank_jax.adaptation import loop
from experiments import lookup

EMBEDDED = "embedded"
"""The base whose weights and images come with the package."""

LEAGUES = {"TA/TALL": "official", "FusionBench": "fusion_bench"}
"""Profile of class names and prompts that the checkpoints of a league belong to."""

_DEFAULT_ORIGINS = {"adarank": "cart", "adamerging": "task_arithmetic"}

BOUNDS = ("pretrained", "individual")
"""What a merge lies between; rows of a table, not merges."""


class _Strict(pydantic.BaseModel):
    """Immutable, and without room for keys that nobody reads."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


Adaptation = pydantic.dataclasses.dataclass(
    loop.AdaptationConfig, config=pydantic.ConfigDict(extra="forbid"), frozen=True
)


def data_from_text(text: str) -> dict[str, str]:
    """Tells what a bare string says of images: a registered data set, or a path.

    Args:
        text: of the configuration.

    Examples:
        >>> data_from_text("cars"), data_from_text("./cars")
        ({'dataset': 'cars'}, {'folder': './cars'})
    """
    if text.endswith(".npz"):
        return {"npz": text}
    return {"folder" if "/" in text or "." in text else "dataset": text}


_PLACES = {
    "dataset": ("source", "on_bad_image"),
    "folder": ("on_bad_image",),
    "npz": (),
    "parquet": ("split",),
}
"""Options of each place that images come from."""


class Data(_Strict):
    """Where the images of a task come from: exactly one of the first four.

    Attributes:
        dataset: a registered data set, for example ``cars``; its size is checked.
        folder: images, in one folder a class or, without labels, flat.
        npz: a NumPy archive with `images` and, if there are any, `labels`. Images of
            whole numbers are pictures of any size; images of floating point, `(images,
            height, width, 3)` of exactly the tower's size, are taken as they are.
        parquet: a folder of parquet files, or a data set on the Hub
            ``org/name[@revision]``.
        source: where a registered data set is looked for: in `data_dir`, among those
            that TensorFlow Datasets prepared there, on the Hub, or in this order.
        split: of a parquet data set.
        on_bad_image: refuse a folder with damaged images, or leave them out.
    """

    dataset: str | None = None
    folder: pathlib.Path | None = None
    npz: pathlib.Path | None = None
    parquet: str | None = None
    source: Literal["auto", "local", "tfds", "hub"] = "auto"
    split: str = "test"
    on_bad_image: Literal["error", "skip"] = "error"

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """Takes a bare string as the name of a registered data set or as a path."""
        return data_from_text(value) if isinstance(value, str) else value

    @pydantic.model_validator(mode="after")
    def _one(self) -> "Data":
        """Checks that one place is named, with no option of another."""
        named = [place for place in _PLACES if getattr(self, place) is not None]
        if len(named) != 1:
            raise ValueError(
                f"name exactly one of {', '.join(_PLACES)}, got {named or 'none'}"
            )
        wrong = sorted(self.model_fields_set - {named[0], *_PLACES[named[0]]})
        wrong = [name for name in wrong if getattr(self, name) is not None]
        if wrong:
            raise ValueError(f"{named[0]} has no {' and no '.join(wrong)}")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _own(self, handler: Any) -> dict[str, Any]:
        """Writes only the options that the place has, so that they can be read back."""
        values = handler(self)
        (place,) = [name for name in _PLACES if values.get(name) is not None]
        return {name: values[name] for name in (place, *_PLACES[place])}


class Expert(_Strict):
    """A fine-tuned checkpoint with its head and unlabelled images.

    Attributes:
        model: a folder, a file, or ``org/name[@revision][:path/in/repository]``.
        data: its images; a string is a registered data set or a path.
        head: a file with the classifier; None to build one from class names.
        classes: names of the classes, a text file with one a line, or the name of a
            registered data set.
        templates: prompts with one ``{}``; those of the data set by default.
    """

    model: str
    data: Data
    head: pathlib.Path | None = None
    classes: tuple[str, ...] | str | None = None
    templates: tuple[str, ...] | None = None

    @pydantic.model_validator(mode="after")
    def _classes(self) -> "Expert":
        """Checks that there is a way to a head."""
        if self.head is None and self.classes is None and self.data.dataset is None:
            raise ValueError(
                "needs `head` (a file) or `classes` (names, to build a zero-shot head)"
            )
        if isinstance(self.classes, tuple) and len(self.classes) < 2:
            raise ValueError(
                f"`classes` must name at least two classes, got {len(self.classes)}"
            )
        if self.head is not None and self.templates is not None:
            raise ValueError("`templates` build a head, but `head` is given; drop one")
        for template in self.templates or ():
            if template.count("{}") != 1:
                raise ValueError(f"`templates` need one {{}} each, got {template!r}")
        return self


class Method(_Strict):
    """How one model is made of many, or one of the two bounds of a table.

    Attributes:
        name: a static merge, ``adamerging`` or ``adarank``; in `compare` also
            ``pretrained`` and ``individual``.
        origin: where adaptation starts; CART for AdaRank by default.
        coefficient: merging coefficient at the start; None for the published one.
        rank_ratio: share of leading directions kept at the start; None for the
            published one.
        objective: what adaptation minimises: the paper's entropy, or cross-entropy
            against each expert's own predictions.
    """

    name: Literal[
        "adarank",
        "adamerging",
        "weight_averaging",
        "task_arithmetic",
        "cart",
        "tsv_m",
        "iso_c",
        "pretrained",
        "individual",
    ] = "adarank"
    origin: Literal["task_arithmetic", "cart", "tsv_m"] | None = None
    coefficient: float | None = None
    rank_ratio: Annotated[float, pydantic.Field(gt=0, le=1)] | None = None
    objective: Literal["entropy", "expert_labels"] | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """Takes a bare string as the name of a method; fills in its own defaults."""
        value = {"name": value} if isinstance(value, str) else value
        name = value.get("name", "adarank") if isinstance(value, dict) else None
        if name not in _DEFAULT_ORIGINS:
            return value
        given = {key: entry for key, entry in value.items() if entry is not None}
        return {"origin": _DEFAULT_ORIGINS[name], "objective": "entropy"} | given

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "Method":
        """Checks that no option is given that the method does not have."""
        is_merge = self.name not in BOUNDS
        has = {
            "origin": self.is_adapted,
            "objective": self.is_adapted,
            "coefficient": is_merge and self.name != "weight_averaging",
            "rank_ratio": self.is_adapted or self.name == "cart",
        }
        wrong = [
            option
            for option, fits in has.items()
            if not fits and getattr(self, option) is not None
        ]
        if wrong:
            raise ValueError(
                f"{self.name} has no {' and no '.join(wrong)}; leave it out, or choose "
                "another method"
            )
        return self

    @property
    def is_adapted(self) -> bool:
        """Whether the method trains on unlabelled images."""
        return self.name in _DEFAULT_ORIGINS


class Export(_Strict):
    """What is written for others to load.

    Attributes:
        enabled: write `export/` at all.
        open_clip: also in the layout of open_clip.
        dtype: of the merged weights; None for the base's.
        max_shard_size: bytes of a weight file, at most.
    """

    enabled: bool = True
    open_clip: bool = False
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    max_shard_size: Annotated[int, pydantic.Field(gt=0)] = 5_000_000_000


class Published(_Strict):
    """What the row of a paper says; never mixed with what was measured here.

    Attributes:
        league: checkpoints and data that the number belongs to.
        mean: accuracy over the tasks, %; None where none is known.
        source: of the number.
        settings: where the hyper-parameters are from.
    """

    league: str
    mean: float | None = None
    source: str | None = None
    settings: str | None = None


class MergeConfig(_Strict):
    """A whole run.

    Attributes:
        base: the pretrained model, as `Expert.model`; ``embedded`` for the embedded
            suite.
        experts: by name of the task.
        tasks: those of the experts to merge; None for all.
        method: that the exported model comes from.
        compare: further rows of the table.
        adaptation: steps, batch and rate of adapted methods.
        prompts: profile of class names and templates.
        qkv: whether query, key and value are one matrix (what the paper decomposes)
            or three.
        export: what is written for others to load.
        shuffle: whether adaptation sees the unlabelled images of every task in random
            order; without, in that of the files, again from the first after the last.
        seed: of the random order.
        run_dir: folder of the run.
        data_dir: folder of registered data sets on disk.
        offline: use only what is on disk.
        published: the row of a paper that this run stands for.
    """

    base: str
    experts: dict[str, Expert | None]
    tasks: tuple[str, ...] | None = None
    method: Method = Method()
    compare: tuple[Method, ...] = (Method(name="pretrained"), Method(name="individual"))
    adaptation: Adaptation = Adaptation()  # pyright: ignore
    prompts: Literal["official", "fusion_bench"] = "official"
    qkv: Literal["fused", "split"] = "fused"
    export: Export = Export()
    shuffle: bool = True
    seed: int = 0
    run_dir: pathlib.Path | None = None
    data_dir: pathlib.Path | None = None
    offline: bool = False
    published: Published | None = None

    @pydantic.field_validator("experts")
    @classmethod
    def _named_once(cls, experts: dict[str, Any]) -> dict[str, Any]:
        """Checks that there are experts, and no two of one name."""
        if not experts:
            raise ValueError(
                "no experts given; name at least one, for example "
                "`experts: {mnist: {model: path/to/checkpoint, data: mnist}}`"
            )
        seen: dict[str, str] = {}
        for name in experts:
            key = unicodedata.normalize("NFC", name).casefold().strip()
            if not key:
                raise ValueError(
                    f"the name of an expert is empty, got {name!r}; name its task"
                )
            if not name.isprintable():
                raise ValueError(
                    f"the name {ascii(name)} of an expert holds characters that cannot "
                    "be shown; use letters, digits and punctuation"
                )
            if key in seen:
                raise ValueError(f"{seen[key]!r} and {name!r} are one name twice")
            seen[key] = name
        return experts

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "MergeConfig":
        """Checks what more than one field decides."""
        if self.method.name in BOUNDS:
            raise ValueError(f"`method` must be a merge, got {self.method.name!r}")
        for name, expert in self.experts.items():
            if (expert is None) != (self.base == EMBEDDED):
                raise ValueError(
                    f"`experts.{name}` must "
                    + ("say model and data" if expert is None else "be empty")
                    + f" with base {self.base!r}"
                )
        if self.published is not None:
            expected = LEAGUES.get(self.published.league, self.prompts)
            if self.prompts != expected:
                raise ValueError(
                    f"`prompts` must be {expected} for checkpoints of the league "
                    f"{self.published.league}, got {self.prompts}; heads of the other "
                    "league would judge them by other classes"
                )
        tasks = self.tasks if self.tasks is not None else tuple(self.experts)
        if not tasks or len(set(tasks)) != len(tasks):
            raise ValueError(f"`tasks` must name each task once, got {list(tasks)}")
        for name in tasks:
            try:
                lookup.nearest("task", name, self.experts)
            except KeyError as error:
                raise ValueError(error.args[0]) from None
        return self

    @property
    def decisive(self) -> dict[str, Any]:
        """All that decides the numbers of a run, as plain values."""
        elsewhere = {"data_dir", "run_dir", "offline", "export", "published"}
        return self.model_dump(mode="json", exclude=elsewhere)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Tasks to merge, in the order of every list of a run."""
        return self.tasks if self.tasks is not None else tuple(self.experts)
