"""Reads `my_merge.yaml`: every mistake at once, each with its line and column.

A safe loader without aliases or tags; duplicate keys are refused; a key that no field
has is answered with the nearest one.
"""

import difflib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pydantic
import yaml

from adarank_jax import errors
from adarank_jax.errors import Message
from experiments.merge_config import MergeConfig

Place = Mapping[tuple[str | int, ...], str]
"""Where the value at each path of keys was written."""

Config = TypeVar("Config", bound=MergeConfig)


def read_config(
    kind: type[Config], file: pathlib.Path, overrides: Sequence[str] = ()
) -> Config:
    """Reads a configuration, and changes single values of it.

    Args:
        kind: of the configuration.
        file: in YAML.
        overrides: ``dotted.key=value``, the value as in YAML.

    Raises:
        UsageError: there is no such file, or it is no YAML.
        Problems: keys or values do not fit; every mistake with its place.
    """
    if not file.is_file():
        # Endings are alike in every name, so they say nothing.
        known = {pathlib.Path(name).stem: name for name in _names(file.parent)}
        near = difflib.get_close_matches(file.stem, known, n=1, cutoff=0.7)
        hint = f"did you mean `{file.parent / known[near[0]]}`?" if near else ""
        raise errors.UsageError("E017", f"there is no file `{file}`", remedy=hint)
    if file.stat().st_size > _LARGEST:
        found = f"larger than {_LARGEST:,} bytes"
        raise errors.UsageError("E012", found, f"`{file}`", remedy="is it a config?")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        found = f"`{file}` is not UTF-8 text: {error}"
        raise errors.UsageError("E012", found, remedy="save it as UTF-8") from error
    values, places = parse(text, str(file), kind)
    return validate(kind, values, places, overrides, str(file))


def parse(
    text: str, name: str, kind: type[MergeConfig]
) -> tuple[dict[str, Any], Place]:
    """Turns YAML into plain values and remembers where each was.

    Args:
        text: a YAML mapping.
        name: of the file, for messages.
        kind: of the configuration, for messages.

    Raises:
        UsageError: it is no mapping, or has aliases, tags or keys twice.
    """
    node = _compose(text, name)
    if not isinstance(node, yaml.MappingNode):
        expected = f"a mapping with the keys {', '.join(_fields(kind))}"
        raise errors.UsageError("E012", "no mapping", name, expected)
    places: dict[tuple[str | int, ...], str] = {}
    return _plain(node, (), places, name), places


def _compose(text, name):
    """Reads YAML to nodes, which know their places."""
    try:
        return yaml.compose(text, _Loader)
    except _UnsupportedError as error:
        where = f"{name}:{_mark(error.problem_mark)}"
        raise errors.UsageError("E012", str(error.problem), where) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        where = f"{name}:{_mark(mark)}" if mark else name
        found = f"not valid YAML: {problem}"
        raise errors.UsageError("E012", found, where) from error


class _UnsupportedError(yaml.MarkedYAMLError):
    """Valid YAML that a configuration may not have."""


class _Loader(yaml.SafeLoader):
    """Refuses aliases, unusual tags and deep nesting while it reads."""

    depth = 0

    def compose_node(self, parent, index):
        """Builds one node and all below it."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            problem = (
                f"aliases (*{event.anchor}) are not supported; write the value out"
            )
            raise _UnsupportedError(problem=problem, problem_mark=event.start_mark)
        if self.depth > _DEEPEST:
            problem = f"nested more than {_DEEPEST} levels deep"
            raise _UnsupportedError(problem=problem, problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag not in _TAGS[type(node)]:
            problem = f"tag {node.tag!r} is not supported; write a plain value"
            raise _UnsupportedError(problem=problem, problem_mark=node.start_mark)
        return node


def validate(
    kind: type[Config],
    values: Mapping[str, Any],
    places: Place,
    overrides: Sequence[str],
    name: str,
) -> Config:
    """Builds the configuration from plain values.

    Args:
        kind: of the configuration.
        values: nested dicts and lists.
        places: where each value was written.
        overrides: ``dotted.key=value``.
        name: of the source, for messages.

    Raises:
        UsageError: a word of `overrides` is none.
        Problems: values do not fit; every mistake with its place.
    """
    changed: Any = _copy(values)
    changed_places = dict(places)
    for override in overrides:
        _override(changed, changed_places, override, kind.shorthand)
    try:
        return kind.model_validate(changed)
    except pydantic.ValidationError as error:
        found = [_mistake(each, changed_places, name, kind) for each in error.errors()]
        code = errors.UsageError.exit_code
        raise errors.Problems([*dict.fromkeys(found)], code) from None


def _plain(node, path, places, name):
    """Builds plain values from a YAML node, and notes their places."""
    places[path] = f"{name}:{_mark(node.start_mark)}"
    if isinstance(node, yaml.SequenceNode):
        return [_plain(n, (*path, i), places, name) for i, n in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        values = {}
        for key_node, value_node in node.value:
            where = f"{name}:{_mark(key_node.start_mark)}"
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                raise errors.UsageError("E012", "a key must be a word", where)
            key = key_node.value
            if key in values:
                remedy = "drop one of the two"
                found = f"{key!r} is there twice"
                raise errors.UsageError("E012", found, where, remedy=remedy)
            values[key] = _plain(value_node, (*path, key), places, name)
            places[(*path, key, _KEY)] = where
        return values
    try:
        return yaml.SafeLoader("").construct_object(node)
    except ValueError as error:  # a date that is none
        found = f"{node.value!r}: {error}"
        raise errors.UsageError("E011", found, places[path]) from error


def _override(values, places, override, shorthand):
    """Sets one value by its dotted key."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise errors.UsageError(
            "E018",
            f"`{override}` is neither a file nor `dotted.key=value`",
            remedy="write a single value as in `method.coefficient=0.3`",
        )
    name = f"`{override}`"
    node = _compose(text, name)
    value = None if node is None else _plain(node, (), {}, name)
    *branches, last = dotted.split(".")
    if not all((*branches, last)):
        raise errors.UsageError("E018", f"a key is empty in `{dotted}`", name)
    place, node = f"command line, {override}", values
    for i, key in enumerate(branches):
        places.setdefault((*branches[: i + 1],), place)
        if isinstance(node.get(key), str) and key in shorthand:
            node[key] = shorthand[key](node[key])
        if node.get(key) is None:
            node[key] = {}
        node = node[key]
        if not isinstance(node, dict):
            found = f"`{'.'.join(branches[: i + 1])}` has no keys"
            raise errors.UsageError("E018", found, name)
    node[last] = value
    path = (*branches, last)
    for old in [old for old in places if old[: len(path)] == path]:
        del places[old]
    places[path] = places[(*path, _KEY)] = place


def _mistake(error, places, name, kind):
    """Says where a mistake is and what it is."""
    path = tuple(part for part in error["loc"] if part != "[key]")
    known = [
        places[path[:end]] for end in range(len(path), -1, -1) if path[:end] in places
    ]
    where = known[0] if known else name
    shown = ".".join(map(str, path))
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        where = places.get((*path, _KEY), where)
        fields = _fields(kind, path[:-1])
        near = difflib.get_close_matches(str(path[-1]), fields, n=1, cutoff=0.0)
        hint = f"did you mean `{near[0]}`?" if near else ""
        expected = f"one of {', '.join(fields)}"
        return Message("E010", f"unknown key `{shown}`", where, expected, hint)
    if error["type"] == "missing":
        return Message("E015", f"`{shown}` is missing", where)
    place = f"{where}: `{shown}`" if shown else where
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, errors.AdaRankError):
        return cause.message.within(place)
    message = error["msg"].removeprefix("Value error, ").removesuffix(".")
    if error["type"] == "value_error" or isinstance(error["input"], dict):
        return Message("E011", message, place)
    given = repr(error["input"])
    given = given if len(given) <= 80 else f"{given[:80]}…"
    return Message("E011", f"`{shown}` is {given}: {message}", where)


def _fields(kind, path=()):
    """Lists the keys that the mapping at a path may have."""
    schema = kind.model_json_schema()
    node = schema
    for part in path:
        node = _branch(schema, node, part)
        if node is None:
            return []
    return list(_resolved(schema, node).get("properties", {}))


def _branch(schema, node, part):
    """Steps from a schema to that of a key or an item."""
    node = _resolved(schema, node)
    if isinstance(part, int):
        return node.get("items")
    return node.get("properties", {}).get(part) or node.get("additionalProperties")


def _resolved(schema, node):
    """Follows references, and picks the mapping or list among alternatives."""
    for option in node.get("anyOf", ()):
        option = _resolved(schema, option)
        if option.get("type") in ("object", "array"):
            return option
    if "$ref" in node:
        return _resolved(schema, schema["$defs"][node["$ref"].rpartition("/")[2]])
    return node


def _copy(values):
    """Copies nested dicts and lists."""
    if isinstance(values, Mapping):
        return {key: _copy(value) for key, value in values.items()}
    return [_copy(v) for v in values] if isinstance(values, list) else values


def _mark(mark):
    """Shows a place as ``line:column``, both from one."""
    return f"{mark.line + 1}:{mark.column + 1}"


def _names(folder):
    """Lists the YAML files of a folder, if there is one."""
    return [file.name for file in folder.glob("*.y*ml")] if folder.is_dir() else []


_KEY = "\0key"
_LARGEST = 300_000
_DEEPEST = 20
_SCALARS = ("str", "int", "float", "bool", "null", "timestamp")
_TAGS = {
    yaml.ScalarNode: {f"tag:yaml.org,2002:{kind}" for kind in _SCALARS},
    yaml.SequenceNode: {"tag:yaml.org,2002:seq"},
    yaml.MappingNode: {"tag:yaml.org,2002:map"},
}
