"""Laws of configurations: precedence, JSON round trip, and messages that name the setting."""

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from pipeline.config import (
    ComponentConfig,
    StageConfig,
    changed_settings,
    load_config,
    parse_config,
)
from pipeline.errors import ConfigError


class Bread(ComponentConfig):
    flour: str = "rye"
    grams: float = Field(500.0, gt=0)


class Bakery(StageConfig):
    resumable_changes: ClassVar[frozenset[str]] = frozenset({"shelf"})

    loaves: int = 1
    bread: Bread = Bread()
    shelf: Path | None = None
    sizes: tuple[int, ...] = (1, 2)


def test_later_sources_win_over_earlier_ones(tmp_path: Path) -> None:
    preset, file = tmp_path / "preset.toml", tmp_path / "file.toml"
    preset.write_text("loaves = 2\nsizes = [4]\n[bread]\nflour = 'wheat'\ngrams = 100\n")
    file.write_text("loaves = 3\n[bread]\ngrams = 200\n")
    config = load_config(
        Bakery,
        preset=preset,
        config_file=file,
        overrides=["bread.grams=300", "loaves=4"],
        fields={"loaves": 5, "shelf": None},
    )
    assert config == Bakery(loaves=5, bread=Bread(flour="wheat", grams=300), sizes=(4,))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("bread.flour=spelt", Bakery(bread=Bread(flour="spelt"))),
        ("bread.flour='1'", Bakery(bread=Bread(flour="1"))),
        ("bread.grams = 1e3", Bakery(bread=Bread(grams=1000))),
        ("sizes=[7, 8]", Bakery(sizes=(7, 8))),
        ("shelf=/tmp/a b", Bakery(shelf=Path("/tmp/a b"))),
        ("bread.flour=a=b", Bakery(bread=Bread(flour="a=b"))),
    ],
)
def test_an_override_is_a_toml_value_or_else_a_bare_string(override: str, expected: Bakery) -> None:
    assert load_config(Bakery, overrides=[override]) == expected


def test_a_configuration_survives_its_json() -> None:
    config = Bakery(loaves=3, bread=Bread(grams=0.1), shelf=Path("top"))
    assert parse_config(Bakery, config.to_json(), "config.json") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bread.salt=1", r"unknown setting bread\.salt; known here: flour, grams$"),
        ("oven=1", "unknown setting oven; known here: loaves, bread, shelf, sizes"),
        ("bread.grams=-1", r"the setting bread\.grams is -1: .*greater than 0"),
        ("loaves=many", "the setting loaves is 'many': .*integer"),
        ("loaves.big=1", "the setting loaves is {'big': 1}"),
        ("bread.flour.fine=1", r"the setting bread\.flour is {'fine': 1}"),
        ("loaves", "--set 'loaves' is not of the form name=value"),
    ],
)
def test_a_fault_is_one_line_that_names_the_setting(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(Bakery, overrides=[override])
    assert "\n" not in str(caught.value)


def test_a_value_cannot_also_be_a_group() -> None:
    with pytest.raises(ConfigError, match="loaves is a value, not a group"):
        load_config(Bakery, overrides=["loaves=1", "loaves.big=2"])


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*no\.toml: No such"):
        load_config(Bakery, config_file=tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("loaves = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
        load_config(Bakery, config_file=tmp_path / "bad.toml")


def test_changed_settings_are_listed_by_dotted_name() -> None:
    changes = list(changed_settings(Bakery(), Bakery(loaves=2, bread=Bread(flour="oat"))))
    assert changes == [("bread.flour", "rye", "oat"), ("loaves", 1, 2)]
