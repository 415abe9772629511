"""The JSON schema of report.json, made from the classes that it is written from.

`python -m eval.report.schema > docs/report.schema.json` publishes it.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from eval.metrics.judge import JSON_FORMAT, Report
from eval.report.gallery import Example

_SIMPLE: Mapping[object, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"], "description": "null where it is undefined"},
    object: {},
    bytes: {},  # not written
    type(None): {"type": "null"},
}
_ATTRIBUTE = re.compile(r"^        (\w+): ((?:.|\n(?=            ))*)", re.MULTILINE)


def report_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12). Every field has to be there, and no other may be."""
    definitions: dict[str, Any] = {}
    schema = _object(Report, definitions)
    example = _object(Example, definitions)
    del example["properties"]["image_png"]
    example["required"].remove("image_png")
    schema["properties"] = {
        "format": {"const": JSON_FORMAT, "description": "Version of the layout."},
        **schema["properties"],
        "examples": {"type": "array", "items": example},
    }
    schema["required"] = ["format", *schema["required"], "examples"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "report.json of ecg-vlm evaluate",
        **schema,
        "$defs": dict(sorted(definitions.items())),
    }


def _object(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a dataclass; those of its fields' classes are added to `definitions`."""
    hints = typing.get_type_hints(kind)
    descriptions = _descriptions(kind)
    properties = {}
    for field in fields(kind):
        properties[field.name] = _schema(hints[field.name], definitions)
        if field.name in descriptions:
            properties[field.name] |= {"description": descriptions[field.name]}
    return {
        "type": "object",
        "description": inspect.getdoc(kind).split("\n\n")[0].replace("\n", " "),  # type: ignore[union-attr]
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if hint in _SIMPLE:
        return dict(_SIMPLE[hint])
    if is_dataclass(hint):
        assert isinstance(hint, type)
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # before its fields, which may be of the same class
            definitions[hint.__name__] = _object(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return {"anyOf": [_schema(part, definitions) for part in parts]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(parts[1], definitions)}
    if origin is tuple and parts[1:] == (...,):
        return {"type": "array", "items": _schema(parts[0], definitions)}
    if origin is tuple:
        items = [_schema(part, definitions) for part in parts]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    raise TypeError(f"no JSON schema for {hint}")


def _descriptions(kind: type) -> dict[str, str]:
    """Field -> its text under "Attributes" in the class's docstring."""
    text = (kind.__doc__ or "").partition("Attributes:")[2]
    return {name: " ".join(words.split()) for name, words in _ATTRIBUTE.findall(text)}


if __name__ == "__main__":
    print(json.dumps(report_schema(), indent=1, ensure_ascii=False))
