"""What a run of CLIP experts is configured by: images, heads, prompts and layout."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import pydantic

from adarank_jax import errors
from experiments.merge_config import Export, MergeConfig, Strict

EMBEDDED = "embedded"
"""The base whose weights and images come with the package."""

LEAGUES = {"TA/TALL": "official", "FusionBench": "fusion_bench"}
"""Profile of class names and prompts that the checkpoints of a league belong to."""


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


class Data(Strict):
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
            raise errors.UsageError(
                "E013",
                f"name exactly one of {', '.join(_PLACES)}, got {named or 'none'}",
            )
        wrong = sorted(self.model_fields_set - {named[0], *_PLACES[named[0]]})
        wrong = [name for name in wrong if getattr(self, name) is not None]
        if wrong:
            found = f"{named[0]} has no {' and no '.join(wrong)}"
            raise errors.UsageError("E013", found, remedy="leave it out")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _own(self, handler: Any) -> dict[str, Any]:
        """Writes only the options that the place has, so that they can be read back."""
        values = handler(self)
        (place,) = [name for name in _PLACES if values.get(name) is not None]
        return {name: values[name] for name in (place, *_PLACES[place])}


class Expert(Strict):
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
            raise errors.UsageError(
                "E309",
                "the task has no head",
                remedy="it needs `head` (a file) or `classes` (names, to build a "
                "zero-shot head)",
            )
        if isinstance(self.classes, tuple) and len(self.classes) < 2:
            raise errors.UsageError(
                "E304",
                f"`classes` must name at least two classes, got {len(self.classes)}",
                remedy="name all classes, in the order of the rows of the head",
            )
        if self.head is not None and self.templates is not None:
            raise errors.UsageError(
                "E013",
                "`templates` build a head, but `head` is given",
                remedy="drop one",
            )
        for template in self.templates or ():
            if template.count("{}") != 1:
                raise errors.UsageError(
                    "E011", f"`templates` need one {{}} each, got {template!r}"
                )
        return self


class ImageExport(Export):
    """What is written for others to load.

    Attributes:
        enabled: write `export/` at all.
        open_clip: also in the layout of open_clip.
        dtype: of the merged weights; None for the base's.
        max_shard_size: bytes of a weight file, at most.
    """

    open_clip: bool = False

    def num_copies(self, num_tasks: int) -> int:
        """Counts how often the merged weights are written.

        Args:
            num_tasks: of the run.
        """
        return int(self.enabled) + int(self.enabled and self.open_clip)


class ImageMergeConfig(MergeConfig):
    """A whole run of CLIP experts; further fields are those of every `MergeConfig`.

    Attributes:
        base: the pretrained model, as `Expert.model`; ``embedded`` for the embedded
            suite.
        experts: by name of the task.
        prompts: profile of class names and templates.
        qkv: whether query, key and value are one matrix (what the paper decomposes)
            or three.
        export: what is written for others to load.
    """

    shorthand: ClassVar[Mapping[str, Callable[[str], dict[str, Any]]]] = {
        **MergeConfig.shorthand,
        "data": data_from_text,
    }

    experts: dict[str, Expert | None]
    prompts: Literal["official", "fusion_bench"] = "official"
    qkv: Literal["fused", "split"] = "fused"
    export: ImageExport = ImageExport()

    def check_own(self) -> None:
        """Checks experts against the base, and prompts against the league.

        Raises:
            UsageError: two fields do not fit.
        """
        for name, expert in self.experts.items():
            if (expert is None) != (self.base == EMBEDDED):
                needed = "say model and data" if expert is None else "be empty"
                raise errors.UsageError(
                    "E013",
                    f"`experts.{name}` must {needed} with base {self.base!r}",
                )
        if self.published is not None:
            expected = LEAGUES.get(self.published.league, self.prompts)
            if self.prompts != expected:
                raise errors.UsageError(
                    "E013",
                    f"`prompts` must be {expected} for checkpoints of the league "
                    f"{self.published.league}, got {self.prompts}",
                    remedy="heads of the other league would judge them by other "
                    "classes",
                )
