"""Opens the teacher of a store under the settings that the store records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import TeacherError
from pipeline.settings import TeacherSettings
from pipeline.teachers.opening import open_teacher, recorded_device
from pipeline.teachers.teacher import YOUNGER, Teacher
from store_schemas.errors import IdentityError
from store_schemas.metadata import compare_identity
from store_schemas.stored_identity import StoreIdentity

WAY_OUT = "give the teacher that the store was made with, or write another store"


def open_stored_teacher(
    path: Path, identity: StoreIdentity, execution_recipe: Mapping[str, Any], **changes: object
) -> Teacher:
    """Open a teacher under a store's settings, and refuse another one.

    changes: settings of this machine, such as ``num_threads``, in place of the recorded ones.

    Raises:
        IdentityError: it is not the store's teacher, and names the first field that differs; or a
            setting of the store's teacher is missing or invalid.
        TeacherError: it cannot be loaded, or not with the settings of the store's teacher.
    """
    known = {**execution_recipe, **identity.teacher}
    if known.get("kind") != "published":  # the name of another network is not given, but read
        known["architecture"] = None
    names = [name for name in TeacherSettings.model_fields if name != "device"]
    try:
        settings = TeacherSettings(
            **{name: known[name] for name in names if name in known or name not in YOUNGER},
            device=recorded_device(execution_recipe),
        )
    except (KeyError, ValueError) as error:
        fault = " ".join(str(error).split())
        raise IdentityError(
            f"identity.teacher must hold every setting of a teacher, but does not: {fault}; use "
            "the program that wrote the store"
        ) from error
    try:
        teacher = open_teacher(path, settings.model_copy(update=changes))
    except TeacherError as error:
        fault = str(error).removesuffix("; leave the option out")  # no option was given here
        raise TeacherError(
            f"{fault}; {path} must fit the settings of the store's teacher: give the teacher that "
            "the store was written with"
        ) from error
    compare_identity(
        {"teacher": identity.teacher}, {"teacher": teacher.identity()}, way_out=WAY_OUT
    )
    return teacher
