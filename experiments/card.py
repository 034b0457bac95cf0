"""The model card of an export: what it is, how good, whose, and how to make it again.

Names come from users and from files that were downloaded, so everything that the
template shows is escaped, unless the template says that it is code.
"""

import dataclasses
import html
import pathlib
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from adarank_jax.checkpoints import hub

UNKNOWN = "unknown"


class Licence(NamedTuple):
    """What a model card says of its licence.

    Attributes:
        id: as the Hub has it, for example ``mit``, or ``other``.
        name: of one that the Hub does not have; empty if none is stated.
        link: to its text, or a file beside the card; empty if none is stated.
    """

    id: str = UNKNOWN
    name: str = ""
    link: str = ""

    def __str__(self) -> str:
        """Shows it in one line, for example ``other (Llama 2, https://…)``."""
        more = ", ".join(each for each in (self.name, self.link) if each)
        return f"{self.id} ({more})" if more else self.id


@dataclasses.dataclass(frozen=True)
class Parent:
    """A model that took part.

    Attributes:
        name: what it is here: the base, or the task of an expert.
        source: Hub id, perhaps with `@revision`, or a path.
        licence: as `read_licence` returns.
        digest: SHA-256 of its image tower or encoder, empty if not known.
    """

    name: str
    source: str
    licence: Licence = Licence()
    digest: str = ""


@dataclasses.dataclass(frozen=True)
class CardHead:
    """The head of a task.

    Attributes:
        task: its name.
        name: of the files in `heads/`, without the ending, or of the folder in
            `tasks/`.
        num_classes: rows of the head.
    """

    task: str
    name: str
    num_classes: int


@dataclasses.dataclass(frozen=True)
class Language:
    """What only the card of a language model tells.

    Attributes:
        family: ``bert``, ``roberta`` or ``gpt2``.
        max_length: tokens of a text, or of a pair.
        metrics: by task, ``accuracy`` or ``matthews``.
        unmerged: tensors that were not merged, named as in the export.
        is_centred: those are the average of the experts, not the base's.
        left_out: names of tensors of the base that the export does not hold.
        unnamed: tasks whose classes no checkpoint and no configuration names.
        has_pooler: the export holds a pooler.
        per_task_copies: `tasks/` holds whole models, not heads.
    """

    family: str
    max_length: int
    metrics: Mapping[str, str]
    unmerged: Sequence[str] = ()
    is_centred: bool = False
    left_out: Sequence[str] = ()
    unnamed: Sequence[str] = ()
    has_pooler: bool = True
    per_task_copies: bool = False

    @property
    def title(self) -> str:
        """Name of the family, as people write it."""
        return {"bert": "BERT", "roberta": "RoBERTa", "gpt2": "GPT-2"}[self.family]

    @property
    def needs_no_pooler(self) -> bool:
        """Whether the library would make a pooler up unless it is told not to."""
        return self.family == "roberta" and not self.has_pooler


@dataclasses.dataclass(frozen=True)
class Card:
    """What a model card tells.

    Attributes:
        title: name of the model.
        method: for example ``AdaRank · cart · entropy``.
        base: what the experts were fine-tuned from.
        experts: one a task.
        heads: those that are in the export.
        uses: data that the method took, for example ``unlabelled test images``.
        command: that made the export.
        config: the resolved configuration, as YAML.
        versions: of packages, device and whatever else is worth a row.
        seed: of the order of the examples.
        commit: of adarank_jax, if known.
        digest: SHA-256 of the merged image tower or encoder, float32, as measured.
        dtype: of it in the export, empty if not known.
        stored_digest: SHA-256 of it as it is in the export, read back as
            float32; other than `digest` if the export is rounded.
        rows: of the table, with `label`, `per_task`, `mean`, `agreement` and
            `per_task_agreement`, shares of one, None where a task has no labels.
        result: `label` of the row that is this model.
        has_text_tower: the export is a whole `CLIPModel`.
        has_open_clip: the export has the files of open_clip.
        has_recipe: the export has `recipe.safetensors`.
        has_masks: the recipe holds masks, not only coefficients.
        language: of a language model; None for CLIP.
    """

    title: str
    method: str
    base: Parent
    experts: Sequence[Parent]
    heads: Sequence[CardHead]
    uses: str
    command: str
    config: str
    versions: Mapping[str, Any]
    seed: int
    commit: str | None = None
    digest: str = ""
    dtype: str = ""
    stored_digest: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    result: str = ""
    has_text_tower: bool = True
    has_open_clip: bool = False
    has_recipe: bool = True
    has_masks: bool = True
    language: Language | None = None


def render(card: Card) -> str:
    """Writes a model card in Markdown, with the metadata that the Hub reads.

    Args:
        card: what it tells.

    Returns:
        The text of README.md.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, _Code) else escape(value),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = _Code
    environment.filters["fenced"] = _fenced
    environment.filters["percent"] = _percent
    language = card.language
    tasks = [parent.name for parent in card.experts]
    metrics = {} if language is None else language.metrics
    name = "image_card.md.jinja" if language is None else "language_card.md.jinja"
    measured = _measured(card)
    field = "per_task" if measured else "per_task_agreement"
    metrics = {task: m for task, m in metrics.items() if task in measured}
    has_mean = all(row["mean"] is not None for row in card.rows)
    text = environment.get_template(name).render(
        card=card,
        model=language,
        parents=[card.base, *card.experts],
        rows=sorted(
            ({**row, "scores": row.get(field, {})} for row in card.rows),
            key=lambda row: row["mean" if has_mean else "agreement"],
        ),
        tasks=tasks,
        measured=measured,
        has_mean=has_mean,
        unlabelled=[task for task in tasks if task not in measured],
        has_agreement=any(row.get("agreement") is not None for row in card.rows),
        columns={task: _column(task, metrics.get(task)) for task in tasks},
        metrics=sorted({*metrics.values()}),
        part="image tower" if language is None else "encoder",
        unit="image" if language is None else "text",
        article="an" if language is None else "a",
        first=card.heads[0].name if card.heads else "",
        model_class=(
            "CLIPModel" if card.has_text_tower else "CLIPVisionModelWithProjection"
        ),
        versions=sorted(_flat(card.versions).items()),
        rebuild=_rebuild_command(card),
    )
    return f"---\n{_metadata(card)}\n---\n{text}"


def _measured(card):
    """Lists the tasks that have a score."""
    scored = {k for row in card.rows for k, v in row["per_task"].items()
              if v is not None}  # fmt: skip
    return [parent.name for parent in card.experts if parent.name in scored]


def _column(task, metric):
    """Names a column of the table, with its metric where that is not accuracy."""
    return f"{task} (Matthews)" if metric == "matthews" else task


def _percent(share):
    """Shows a share of one in percent, and a dash where there is none."""
    return "–" if share is None else f"{100 * share:.2f}"


class _Code(str):
    """Text that the template shows as it is."""


def _fenced(text, language):
    """Shows text as a block of code that it cannot end."""
    lines = [_visible(line) for line in text.strip("\n").split("\n")]
    longest = max(map(len, re.findall("`+", "\n".join(lines))), default=0)
    fence = "`" * max(3, longest + 1)
    return _Code("\n".join([fence + language, *lines, fence]))


def escape(value: Any) -> str:
    r"""Makes any text mean nothing but itself in Markdown and HTML.

    Args:
        value: shown as `str(value)`, in one line.

    Examples:
        >>> escape("a|b_c <script>")
        'a\\|b\\_c &lt;script&gt;'
    """
    text = html.escape(_visible(str(value)), quote=False)
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", text)


def _visible(text):
    """Replaces control characters, and those that change the direction of text."""
    return "".join(
        " "
        if char in "\n\t"
        else "�"
        if unicodedata.category(char) in _HIDDEN
        else char
        for char in text
    )


def _metadata(card):
    """Writes the front matter."""
    from huggingface_hub import EvalResult, ModelCardData

    parents = (card.base, *card.experts)
    licences = {parent.licence for parent in parents}
    # One that every parent has; several together have no name.
    licence = licences.pop() if len(licences) == 1 else Licence()
    language = card.language
    kind = "image-classification" if language is None else "text-classification"
    family = "clip" if language is None else language.family
    metrics = {} if language is None else language.metrics
    own = [row for row in card.rows if row["label"] == card.result]
    results = [
        EvalResult(
            task_type=kind,
            dataset_type=re.sub(r"[^a-z0-9._-]+", "-", task.lower()).strip("-")
            or "task",
            dataset_name=_visible(task),
            dataset_split="test" if language is None else None,
            metric_type=_METRICS[metrics.get(task, "accuracy")],
            metric_value=round(float(share), 6),
        )
        for row in own
        for task, share in row["per_task"].items()
        if share is not None
    ]
    whole = card.has_text_tower
    image = "zero-shot-image-classification" if whole else "image-feature-extraction"
    return ModelCardData(
        base_model=[hub_id(p.source) for p in parents if hub_id(p.source)] or None,
        base_model_relation="merge",
        eval_results=results or None,
        library_name="transformers",
        license=licence.id if licence.id != UNKNOWN else None,
        license_name=_visible(licence.name) or None,
        # A file beside the card of a parent is not beside this one.
        license_link=licence.link if "://" in licence.link else None,
        model_name=_visible(card.title),
        pipeline_tag=image if language is None else kind,
        tags=["merge", "model-merging", family, "adarank"],
    ).to_yaml()


def hub_id(source: str) -> str | None:
    """Returns the repository of a source without its revision; None for a path.

    Examples:
        >>> hub_id("openai/clip-vit-base-patch32@main")
        'openai/clip-vit-base-patch32'
        >>> hub_id("./experts/mnist.pt")
    """
    parts = None if pathlib.Path(source).exists() else hub.parse(source)
    return parts[0] if parts else None


def read_licence(folder: pathlib.Path | None) -> Licence:
    """Reads the licence that a model folder states.

    Args:
        folder: with a README.md, perhaps; None for no folder.

    Returns:
        The licence; its `id` is `UNKNOWN` if none is stated.
    """
    file = folder / "README.md" if folder else None
    if file is None or not file.is_file():
        return Licence()
    with file.open("rb") as stream:
        text = stream.read(1_000_000).decode("utf-8", errors="replace")
    matter = re.match(r"\s*---\r?\n(.*?)\r?\n---\s", text, re.DOTALL)
    try:
        values = yaml.safe_load(matter[1]) if matter else None
    except yaml.YAMLError:
        return Licence()
    values = values if isinstance(values, dict) else {}
    found, name, link = (values.get(f"license{end}") for end in ("", "_name", "_link"))
    if not (known := _text(found, r"[\w.+-]{1,64}")):
        return Licence()
    return Licence(
        known.lower(),
        _text(name, r"[^\0-\x1f\x7f]{1,200}").strip(),
        _text(link, r"(https?://)?[\w.~%/?=&+#-]{1,500}"),
    )


def _text(value: Any, pattern: str) -> str:
    """Returns a value if it is a text of a form, else an empty text."""
    is_text = isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII)
    return value if is_text else ""


def _rebuild_command(card):
    """Writes the command that makes the weights again."""
    experts = " ".join(shlex.quote(f"{p.name}={p.source}") for p in card.experts)
    return (
        "python -m experiments.rebuild --recipe recipe.safetensors \\\n"
        f"    --base {shlex.quote(card.base.source)} \\\n"
        f"    --experts {experts} \\\n    --out rebuilt"
    )


def _flat(values, prefix=""):
    """Lists nested values by path."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key} ")
        else:
            many = isinstance(value, list | tuple)
            flat[prefix + key] = ", ".join(map(str, value)) if many else value
    return flat


_METRICS = {"accuracy": "accuracy", "matthews": "matthews_correlation"}
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
