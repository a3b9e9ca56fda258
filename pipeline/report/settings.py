"""The settings in which runs differ from each other and from the defaults."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import StageConfig, flat_settings

ABSENT = "-"
"""Shown for a setting that a run does not have, such as one of another policy of views."""


@dataclass(frozen=True)
class SettingRow:
    """One setting of all runs."""

    name: str
    values: tuple[str, ...]
    default: str | None
    """Default where a run has another value; None: every run has the default."""
    differs: bool
    """Whether it is not the same for all runs."""


def setting_rows(
    configs: Sequence[StageConfig], defaults: Sequence[StageConfig]
) -> list[SettingRow]:
    """Return all settings: those that differ among runs first, then those not at their default.

    defaults: for each run, the configuration with nothing but defaults.
    """
    given = [flat_settings(config) for config in configs]
    usual = [flat_settings(config) for config in defaults]
    rows = []
    for name in dict.fromkeys(name for settings in given for name in settings):
        values = tuple(_in_words(settings, name) for settings in given)
        of_default = tuple(_in_words(settings, name) for settings in usual)
        changed = [d for value, d in zip(values, of_default, strict=True) if value != d]
        rows.append(SettingRow(name, values, changed[0] if changed else None, len(set(values)) > 1))
    return sorted(rows, key=lambda row: (not row.differs, row.default is None))


def _in_words(settings: dict[str, object], name: str) -> str:
    if name not in settings:
        return ABSENT
    value = settings[name]
    return value if isinstance(value, str) else json.dumps(value)
