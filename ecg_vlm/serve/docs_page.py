"""/docs: the API's own description as a plain page, without a script and without another host."""

from __future__ import annotations

import json
from html import escape
from typing import Any


def docs_html(description: dict[str, Any]) -> str:
    """The OpenAPI description as HTML."""
    info = description["info"]
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="stylesheet" href="/docs.css"></head><body><main>',
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>",
        '<p><a href="/openapi.json">openapi.json</a></p>',
    ]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            parts.append(_operation(path, method, operation))
    parts.append("<h2>Schemas</h2>")
    schemas = description.get("components", {}).get("schemas", {})
    parts += [_schema(name, schema) for name, schema in sorted(schemas.items())]
    return "\n".join([*parts, "</main></body></html>"])


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    text = f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
    return text + (f"<p>Body: {_type(body)}</p>" if body else "")


def _schema(name: str, schema: dict[str, Any]) -> str:
    mandatory = schema.get("required", ())
    rows = "".join(
        f"<tr><th><code>{escape(key)}</code>{'' if key in mandatory else '?'}</th><td>{_type(value)}</td>"
        f"<td>{_default(value)}</td><td>{escape(value.get('description', ''))}</td></tr>"
        for key, value in schema.get("properties", {}).items()
    )
    text = f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{escape(schema.get("description", ""))}</p>'
    return text + f"<table><tr><th>key</th><th>type</th><th>default</th><th></th></tr>{rows}</table>"


def _default(schema: dict[str, Any]) -> str:
    return f"<code>{escape(json.dumps(schema['default']))}</code>" if "default" in schema else ""


def _type(schema: dict[str, Any]) -> str:
    """A type in words, links where it has a name."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " | ".join(f"<code>{escape(json.dumps(v))}</code>" for v in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "any")))
