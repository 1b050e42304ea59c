"""The shape an answer shall have: a JSON schema or a Python type, and whether a value has it. Pure.

Strategy: a `Shape` is a schema that a model is shown, and a `fit` that returns the value or says in one line
what is wrong with it. Of a type, msgspec or pydantic make the schema and do the fitting. A schema given as a
dict is checked lightly, by the keywords in `_CHECKS`: enough to know whether an answer is what was asked for,
and no full validator. `found` finds JSON in an answer: alone, in a code fence, or within words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from ..errors import UsageError

__all__ = ["Shape", "found", "shape_of"]

_DEEPEST = 50
_PLACES = 50  # within an answer, at which JSON is looked for


@dataclass(frozen=True, slots=True)
class Shape:
    """What an answer shall look like.

    Attributes:
        schema: a JSON schema of an object.
        fit: the value as its caller wants it; raises ValueError with what is wrong.
    """

    schema: dict[str, Any]
    fit: Callable[[Any], Any]


def shape_of(wanted: Any) -> Shape:
    """The shape a caller means: a JSON schema, or a type that msgspec or pydantic knows.

    Raises:
        UsageError: it is neither, or not of an object.
    """
    if isinstance(wanted, Mapping):
        schema = dict(wanted)
        shape = Shape(schema, lambda value: _fitted(value, schema))
    elif hasattr(wanted, "model_json_schema") and hasattr(wanted, "model_validate"):  # pydantic
        shape = Shape(wanted.model_json_schema(), wanted.model_validate)
    else:
        try:
            shape = Shape(_inlined(msgspec.json.schema(wanted)), lambda value: msgspec.convert(value, wanted))
        except TypeError as error:
            raise UsageError(f"no JSON schema can be made of {wanted!r}: {error}", hint=_HINT) from None
    if shape.schema.get("type") != "object":
        raise UsageError("the schema is not that of an object", hint=_HINT)
    return shape


_HINT = 'pass {"type": "object", "properties": {…}}, a dataclass, a TypedDict, a Struct or a pydantic model'


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its root in place of a reference to it: some endpoints take no other."""
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    root = schema.get("$defs", {}).get(name)
    if root is None:
        return schema
    others = {key: value for key, value in schema.items() if key != "$ref"}
    rest = {key: value for key, value in schema["$defs"].items() if key != name}
    if rest or f'"#/$defs/{name}"' in json.dumps(root):
        return {**root, "$defs": schema["$defs"]}
    return {**root, **{key: value for key, value in others.items() if key != "$defs"}}


# The light check.


class _Place(NamedTuple):
    """Where in an answer a value stands, for people, and the schema that references lead into."""

    root: dict[str, Any]
    name: str = "the answer"
    depth: int = 0

    def inside(self, name: str) -> _Place:
        return self._replace(name=f"{self.name}{name}", depth=self.depth + 1)


def _fitted(value: Any, schema: dict[str, Any]) -> Any:
    problem = next(_problems(value, schema, _Place(schema)), None)
    if problem is not None:
        raise ValueError(problem)
    return value


def _problems(value: Any, schema: Any, place: _Place) -> Iterator[str]:
    """What is wrong with a value, as far as this looks."""
    if schema is False:
        yield f"{place.name} must not be there"
    if not isinstance(schema, Mapping) or place.depth > _DEEPEST:
        return
    if "$ref" in schema:
        yield from _problems(value, _at(str(schema["$ref"]), place.root), place.inside(""))
    for keyword, check in _CHECKS.items():
        if keyword in schema:
            yield from check(value, schema, place)


def _at(reference: str, root: dict[str, Any]) -> Any:
    """The schema at a local reference, such as "#/$defs/Item"; {} if there is none."""
    found: Any = root
    for name in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(name, {}) if isinstance(found, Mapping) and name else found
    return found if reference.startswith("#") else {}


def _is_whole(value: Any) -> bool:
    number = isinstance(value, int) and not isinstance(value, bool)
    return number or (isinstance(value, float) and value.is_integer())


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": _is_whole,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def _type(value: Any, schema: Any, place: _Place) -> Iterator[str]:
    said = schema["type"]
    names = [str(name) for name in (said if isinstance(said, list) else [said])]
    if not any(_TYPES.get(name, lambda _: True)(value) for name in names):
        yield f"{place.name} is not of type {' or '.join(names)}"


def _enum(value: Any, schema: Any, place: _Place) -> Iterator[str]:
    yield from _none_of(value, schema["enum"], place)


def _const(value: Any, schema: Any, place: _Place) -> Iterator[str]:
    yield from _none_of(value, [schema["const"]], place)


def _none_of(value: Any, allowed: Any, place: _Place) -> Iterator[str]:
    if value not in allowed:
        yield f"{place.name} is none of {json.dumps(allowed, ensure_ascii=False)[:200]}"


def _required(value: Any, schema: Any, place: _Place) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{place.name} has no {name!r}" for name in schema["required"] if name not in value)


def _properties(value: Any, schema: Any, place: _Place) -> Iterator[str]:
    for name, inner in schema["properties"].items() if isinstance(value, dict) else ():
        if name in value:
            yield from _problems(value[name], inner, place.inside(f".{name}"))


def _additional(value: Any, schema: Any, place: _Place) -> Iterator[str]:
    known = schema.get("properties", {})
    for name in value if isinstance(value, dict) else ():
        if name not in known and "patternProperties" not in schema:
            yield from _problems(value[name], schema["additionalProperties"], place.inside(f".{name}"))


def _items(value: Any, schema: Any, place: _Place) -> Iterator[str]:
    for number, each in enumerate(value if isinstance(value, list) else ()):
        yield from _problems(each, schema["items"], place.inside(f"[{number}]"))


def _any(value: Any, schema: Any, place: _Place) -> Iterator[str]:
    yield from _fits_none(value, schema["anyOf"], place)


def _one(value: Any, schema: Any, place: _Place) -> Iterator[str]:
    """One at least: whether a second fits, too, is not looked at."""
    yield from _fits_none(value, schema["oneOf"], place)


def _fits_none(value: Any, choices: Any, place: _Place) -> Iterator[str]:
    if choices and all(any(_problems(value, each, place.inside(""))) for each in choices):
        yield f"{place.name} fits none of the {len(choices)} schemas it may have"


def _all(value: Any, schema: Any, place: _Place) -> Iterator[str]:
    for each in schema["allOf"]:
        yield from _problems(value, each, place.inside(""))


_CHECKS: dict[str, Callable[[Any, Any, _Place], Iterator[str]]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "anyOf": _any,
    "oneOf": _one,
    "allOf": _all,
}

# JSON in an answer.

_FENCE = re.compile(r"```[\w-]*+[ \t]*+\n?+(.*?)```", re.DOTALL)  # possessive: nothing is tried twice


def found(text: str) -> Iterator[Any]:
    """The JSON objects in an answer, the likeliest first: all of it, a fence's content, one among words."""
    return (value for value in islice(_looked_for(text), _PLACES) if value is not None)


def _looked_for(text: str) -> Iterator[Any]:
    """What is at each place of an answer where an object may stand; None for nothing."""
    yield _object(text.strip())
    for match in _FENCE.finditer(text):
        yield _object(match[1].strip())
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, end = None, at + 1
        yield value
        at = text.find("{", end)


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text) if text.startswith("{") else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
