"""What every run is configured by: the shared fields of `my_merge.yaml` and presets.

`image_config` and `text_config` add what belongs to one kind of model. Unknown keys are
refused; `read_config` says where a mistake is.
"""

import abc
import pathlib
import unicodedata
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import pydantic.dataclasses

from adarank_jax import errors
from adarank_jax.adaptation import loop
from adarank_jax.core.svd_backends import Backend
from experiments import lookup

_FASTEST = 10
_DEFAULT_ORIGINS = {"adarank": "cart", "adamerging": "task_arithmetic"}

BOUNDS = ("pretrained", "individual")
"""What a merge lies between; rows of a table, not merges."""


EXPORT_FOLDER = "export"
"""Name of the exported model in the folder of a run."""


class Strict(pydantic.BaseModel):
    """Immutable, and without room for keys that nobody reads."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


Adaptation = pydantic.dataclasses.dataclass(
    loop.AdaptationConfig, config=pydantic.ConfigDict(extra="forbid"), frozen=True
)


class Method(Strict):
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
        if not isinstance(name, str) or name not in _DEFAULT_ORIGINS:
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
            raise errors.UsageError(
                "E013",
                f"{self.name} has no {' and no '.join(wrong)}",
                remedy="leave it out, or choose another method",
            )
        return self

    @property
    def is_adapted(self) -> bool:
        """Whether the method trains on unlabelled examples."""
        return self.name in _DEFAULT_ORIGINS


class Export(Strict):
    """What is written for others to load.

    Attributes:
        enabled: write `export/` at all.
        dtype: of the merged weights; None for the base's.
        max_shard_size: bytes of a weight file, at most.
    """

    enabled: bool = True
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    max_shard_size: Annotated[int, pydantic.Field(gt=0)] = 5_000_000_000

    def num_copies(self, num_tasks: int) -> int:
        """Counts how often the merged weights are written.

        Args:
            num_tasks: of the run.
        """
        return int(self.enabled)


class Published(Strict):
    """What the row of a paper says; never mixed with what was measured here.

    Attributes:
        league: checkpoints and data that the number belongs to.
        mean: score over the tasks, %; None where none is known.
        source: of the number.
        settings: where the hyper-parameters are from.
    """

    league: str
    mean: float | None = None
    source: str | None = None
    settings: str | None = None


class MergeConfig(Strict, abc.ABC):
    """A whole run, as far as all kinds of models share it.

    Attributes:
        base: the pretrained model: a folder, a file, or
            ``org/name[@revision][:path/in/repository]``.
        experts: by name of the task.
        tasks: those of the experts to merge; None for all.
        method: that the exported model comes from.
        compare: further rows of the table.
        adaptation: steps, batch and rate of adapted methods.
        svd_backend: what decomposes the task vectors: ``gram``, eigenvectors of the
            Gram matrix, or ``host``, LAPACK's SVD, both on the host CPU, or ``device``,
            the SVD of the accelerator.
        export: what is written for others to load.
        shuffle: whether adaptation sees the unlabelled examples of every task in random
            order; without, in that of the files, again from the first after the last.
        seed: of the random order.
        run_dir: folder of the run.
        data_dir: folder of registered data sets on disk.
        offline: use only what is on disk.
        published: the row of a paper that this run stands for.
    """

    shorthand: ClassVar[Mapping[str, Callable[[str], dict[str, Any]]]] = {
        "method": lambda name: {"name": name}
    }
    """What a mapping is, for which a bare string may stand."""

    base: str
    experts: dict[str, Any]
    tasks: tuple[str, ...] | None = None
    method: Method = Method()
    compare: tuple[Method, ...] = (Method(name="pretrained"), Method(name="individual"))
    adaptation: Adaptation = Adaptation()  # pyright: ignore
    svd_backend: Backend = "gram"
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
            raise errors.UsageError(
                "E301",
                "no experts given",
                remedy="name at least one, for example `experts: {NAME: {model: "
                "path/to/checkpoint, data: path/to/data}}`",
            )
        seen: dict[str, str] = {}
        for name in experts:
            key = unicodedata.normalize("NFC", name).casefold().strip()
            if not key:
                found = f"the name of an expert is empty, got {name!r}"
                raise errors.UsageError("E303", found, remedy="name its task")
            if not name.isprintable():
                raise errors.UsageError(
                    "E303",
                    f"the name {ascii(name)} of an expert holds characters that cannot "
                    "be shown",
                    remedy="use letters, digits and punctuation",
                )
            if key in seen:
                found = f"{seen[key]!r} and {name!r} are one name twice"
                remedy = "capitals and spaces tell no tasks apart; rename one of them"
                raise errors.UsageError("E302", found, remedy=remedy)
            seen[key] = name
        return experts

    @pydantic.field_validator("adaptation")
    @classmethod
    def _is_slow_enough(cls, adaptation: Any) -> Any:
        """Checks that a step cannot throw every logit and coefficient away."""
        rate = adaptation.learning_rate
        if rate > _FASTEST:
            found = f"`learning_rate` must be at most {_FASTEST}, got {rate:g}"
            remedy = "is a minus missing in its exponent?"
            raise errors.UsageError("E011", found, remedy=remedy)
        return adaptation

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "MergeConfig":
        """Checks what more than one field decides."""
        if self.method.name in BOUNDS:
            raise errors.UsageError(
                "E013",
                f"`method` must be a merge, got {self.method.name!r}",
                remedy="name a merge, and this row in `compare`",
            )
        self.check_own()
        tasks = self.tasks if self.tasks is not None else tuple(self.experts)
        if not tasks or len(set(tasks)) != len(tasks):
            found = f"`tasks` must name each task once, got {list(tasks)}"
            remedy = "name experts, or leave `tasks` out to merge all"
            raise errors.UsageError("E302", found, remedy=remedy)
        for name in tasks:
            lookup.nearest("task", name, self.experts)
        return self

    @abc.abstractmethod
    def check_own(self) -> None:
        """Checks what more than one field of this kind decides.

        Raises:
            UsageError: two fields do not fit.
        """

    @property
    def decisive(self) -> dict[str, Any]:
        """All that decides the numbers of a run, as plain values."""
        elsewhere = ("data_dir", "run_dir", "offline", "export", "published")
        # They change memory and time: all give the same numbers up to rounding.
        placed = {"parallel", "tasks_at_once", "remat"}
        exclude = dict.fromkeys(elsewhere, True) | {"adaptation": placed}
        return self.model_dump(mode="json", exclude=exclude)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Tasks to merge, in the order of every list of a run."""
        return self.tasks if self.tasks is not None else tuple(self.experts)
