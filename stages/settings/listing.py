"""All settings of a stage, listed: name, values, default and meaning, from its model.

Read from the model's JSON schema, which pydantic makes: https://json-schema.org/draft/2020-12.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

Schema = Mapping[str, Any]

_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
_KINDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "null": "none",
    "object": "table",
}


@dataclass(frozen=True)
class SettingLine:
    """One setting of a stage."""

    name: str
    """Dotted name, as --set and a TOML file take it."""
    values: str
    """What it may be, with its bounds."""
    default: str | None
    """As --set takes it; None: there is none, or it follows from other settings."""
    is_required: bool
    meaning: str
    only_where: str
    """Value of another setting with which this one exists: data.view_policy = carry; or empty."""


def list_settings(model: type[BaseModel]) -> Iterator[SettingLine]:
    """Yield all settings of a stage, in the order of the model; groups by dotted names."""
    schema = model.model_json_schema()
    for line in _lines(schema, schema.get("$defs", {}), "", {}, ""):
        own = getattr(model, "own_defaults", {}).get(line.name)
        yield line if own is None else replace(line, default=_as_text(own))


def _lines(
    owner: Schema, models: Schema, prefix: str, defaults: Schema, only_where: str
) -> Iterator[SettingLine]:
    for name, field in owner["properties"].items():
        default = defaults.get(name, field.get("default"))
        group = _model_of(field, models)
        if "discriminator" in field:
            yield from _lines_of_union(field, models, prefix + name)
        elif group is not None:
            yield from _lines(group, models, f"{prefix}{name}.", default or {}, only_where)
        elif "const" not in field:
            yield SettingLine(
                name=prefix + name,
                values=_values(field, models),
                default=None if default is None else _as_text(default),
                is_required=name in owner.get("required", ()) and default is None,
                meaning=_prose(field),
                only_where=only_where,
            )


def _lines_of_union(field: Schema, models: Schema, name: str) -> Iterator[SettingLine]:
    """Yield the settings of all members of a union, those that members share once."""
    marker = field["discriminator"]["propertyName"]
    members = field["discriminator"]["mapping"]
    choices = {value: models[place.rpartition("/")[2]] for value, place in members.items()}
    meaning = "; ".join(f"{value}: {_prose(model)}" for value, model in choices.items())
    yield SettingLine(f"{name}.{marker}", " | ".join(choices), None, False, meaning, "")
    found: dict[SettingLine, list[str]] = {}
    for value, model in choices.items():
        for line in _lines(model, models, f"{name}.", {}, ""):
            found.setdefault(line, []).append(value)
    for line, values in found.items():
        where = "" if len(values) == len(members) else f"{name}.{marker} = {' or '.join(values)}"
        yield replace(line, only_where=where)


def _model_of(field: Schema, models: Schema) -> Schema | None:
    """Return the model of a group of settings; None for a single value."""
    model = models.get(field.get("$ref", "").rpartition("/")[2])
    return model if model is not None and "properties" in model else None


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _prose(described: Schema) -> str:
    return " ".join(described.get("description", "").replace("``", "").split())


def _values(field: Schema, models: Schema) -> str:
    """Return the values that a setting takes, in words."""
    if "$ref" in field:
        field = models[field["$ref"].rpartition("/")[2]]
    if "anyOf" in field:
        return " or ".join(_values(part, models) for part in field["anyOf"])
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    if "prefixItems" in field:
        return f"[{', '.join(_values(part, models) for part in field['prefixItems'])}]"
    if field.get("type") == "array":
        return f"list of {_values(field.get('items', {}), models)}"
    bounds = [f"{words} {field[key]:g}" for key, words in _BOUNDS.items() if key in field]
    kind = "path" if "path" in field.get("format", "") else _KINDS.get(field.get("type", ""), "any")
    return " ".join([kind, " and ".join(bounds)]).strip()
