"""The description of the API as a plain page, made of what `openapi.json` says; it loads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from gancolor import __version__


def render(schema: dict[str, Any], model: str, root: str) -> str:
    """The page, HTML. `schema`: what openapi.json holds. `root`: the path that the server is under."""
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    operations = [
        _operation(method.upper(), path, told)
        for path, methods in schema["paths"].items()
        for method, told in methods.items()
    ]
    return template.render(version=__version__, model=model, root=root, operations=operations)


def _operation(method: str, path: str, told: dict[str, Any]) -> dict[str, Any]:
    content = told.get("requestBody", {}).get("content", {}).get("multipart/form-data", {})
    parts = content.get("schema", {}).get("properties", {})
    options = parts.get("options", {}).get("properties", {})
    return {
        "method": method,
        "path": path,
        "description": told.get("description", ""),
        "parts": [(name, part.get("description", "")) for name, part in parts.items()],
        "options": [
            (name, option.get("description", ""), _values(option))
            for name, option in options.items()
        ],
        "answers": [
            (status, answer["description"]) for status, answer in told["responses"].items()
        ],
    }


def _values(option: dict[str, Any]) -> str:
    if "enum" in option:
        words = ", ".join(option["enum"])
    else:
        words = str(option["type"])
        low = option.get("minimum", option.get("exclusiveMinimum"))
        high = option.get("maximum")
        if low is not None and high is not None:
            words += f", {low:g} to {high:g}"
        elif low is not None:
            words += f", {'at least' if 'minimum' in option else 'above'} {low:g}"
    return f"{words}; default {option['default']}" if "default" in option else words
