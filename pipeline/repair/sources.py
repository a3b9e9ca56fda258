"""The teacher and the paths that a store was written from, found again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, TeacherError
from pipeline.settings import TeacherSettings
from pipeline.teachers.opening import open_teacher
from pipeline.teachers.teacher import Teacher
from store_schemas.errors import IdentityError
from store_schemas.identity import compare_identity
from store_schemas.stored_identity import StoreIdentity

WAY_OUT = "give the teacher that the store was made with, or write another store"


def stored_settings(
    identity: StoreIdentity, execution_recipe: Mapping[str, Any]
) -> TeacherSettings:
    """Return the settings of a store's teacher.

    Raises:
        IdentityError: a setting is missing or invalid.
    """
    known = {**execution_recipe, **identity.teacher}
    try:
        return TeacherSettings(**{name: known[name] for name in TeacherSettings.model_fields})
    except (KeyError, ValueError) as error:
        fault = " ".join(str(error).split())
        raise IdentityError(
            f"identity.teacher must hold every setting of a teacher, but does not: {fault}; use "
            "the program that wrote the store"
        ) from error


def open_stored_teacher(
    path: Path, identity: StoreIdentity, execution_recipe: Mapping[str, Any]
) -> Teacher:
    """Open a teacher under a store's settings, and refuse another one.

    Raises:
        IdentityError: it is not the store's teacher; names the first field that differs.
        TeacherError: it cannot be loaded, or not with the settings of the store's teacher.
    """
    settings = stored_settings(identity, execution_recipe)
    try:
        teacher = open_teacher(path, settings)
    except TeacherError as error:
        raise TeacherError(f"{error} (opened with the settings of the store's teacher)") from error
    compare_identity(
        {"teacher": identity.teacher}, {"teacher": teacher.identity()}, way_out=WAY_OUT
    )
    return teacher


def source_path(provenance: Mapping[str, Any], name: str, given: Path | None) -> Path | None:
    """Return the path of a store's teacher, images or annotations; None: it is unknown.

    Args:
        name: Name of the path in the provenance, and of the option that gives another one.
        given: Path by the option; None: the recorded one is returned, if it still exists.

    Raises:
        ConfigError: nothing is at the given path.
    """
    if given is not None and not given.exists():
        raise ConfigError(f"--{name} {given} does not exist; give the path of the store's {name}")
    recorded = provenance.get(name)
    if given is not None or not isinstance(recorded, str):
        return given
    path = Path(recorded)
    return path if path.exists() else None
