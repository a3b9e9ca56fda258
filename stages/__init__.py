"""The programs: each stage is one function, readable top to bottom; they meet only on disk."""

from pathlib import Path

from pipeline.errors import ConfigError

PRESETS = Path(__file__).parent / "presets"


def preset_file(name: str) -> Path:
    """Return the TOML file of a shipped preset.

    Raises:
        ConfigError: there is no preset of that name.
    """
    path = PRESETS / f"{name}.toml"
    if Path(name).name != name or not path.is_file():
        known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.toml")))
        raise ConfigError(f"there is no preset {name!r}; shipped presets: {known}")
    return path
