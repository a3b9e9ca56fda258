"""Opens the file of a teacher, and refuses a teacher of other keypoints than the people's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.coco.people import People
from pipeline.errors import PeopleError, TeacherError
from pipeline.settings import DeviceName, TeacherSettings, is_on_hub
from pipeline.teachers.teacher import Teacher
from pipeline.wording import counted

_KINDS = (
    "a .onnx file, a published checkpoint (.pth, .pt, .bin, .safetensors), the folder or "
    "hf:OWNER/NAME of a ViTPose of transformers, or the weights or run folder of "
    "`distil train-teacher`"
)


def open_teacher(path: Path, settings: TeacherSettings) -> Teacher:
    """Open the file of a heatmap network, or the run folder of a teacher trained here.

    Raises:
        TeacherError: the file is missing, is of no known kind, or is no heatmap network.
    """
    expected = f"expected {_KINDS}"
    if is_on_hub(path) or is_huggingface_folder(path):
        from pipeline.teachers.huggingface_network import HuggingFaceTeacher

        if settings.architecture is not None:
            raise _without_effect(path, settings.architecture)
        huggingface = HuggingFaceTeacher(path, settings)
        read = settings.model_copy(update=huggingface.preprocessing)
        return Teacher(huggingface, read, huggingface.notes)
    if not path.exists():
        raise TeacherError(f"teacher {path} does not exist; {expected}")
    if path.suffix == ".onnx":
        from pipeline.teachers.onnx_network import OnnxNetwork

        if settings.architecture is not None:
            raise _without_effect(path, settings.architecture)
        return Teacher(OnnxNetwork(path, settings), settings)

    from pipeline.runs.published_files import SUFFIXES, is_published_file
    from pipeline.teachers.torch_network import PublishedTeacher, TorchNetwork

    if is_published_file(path):
        published = PublishedTeacher(path, settings)
        return Teacher(published, settings, published.notes)
    if path.is_dir() or path.suffix in SUFFIXES:
        network = TorchNetwork(path, settings)
        return Teacher(network, settings.model_copy(update=network.preprocessing))
    raise TeacherError(f"teacher {path} is of no known kind; {expected}")


def _without_effect(path: Path, architecture: str) -> TeacherError:
    return TeacherError(
        f"architecture is {architecture}, but {path} states its network; leave the option out"
    )


def is_huggingface_folder(path: Path) -> bool:
    """Return whether a folder holds a model of transformers: one whose config names its type."""
    config = path / "config.json"
    if not config.is_file():
        return False
    try:
        content = json.loads(config.read_bytes())
    except ValueError:
        return False
    return isinstance(content, dict) and "model_type" in content


def recorded_device(execution_recipe: Mapping[str, Any]) -> DeviceName:
    """Return the device on which a store goes on: the CPU if it was begun there, else auto.

    execution_recipe: as ``Teacher.execution_recipe`` gives it.
    """
    devices = execution_recipe.get("device"), execution_recipe.get("providers")
    return "cpu" if devices in (("cpu", None), (None, ["CPUExecutionProvider"])) else "auto"


def require_keypoints(teacher: Teacher, keypoint_names: tuple[str, ...]) -> None:
    """Refuse a teacher whose number of heatmaps is not the category's number of keypoints.

    Raises:
        TeacherError: the numbers differ.
    """
    if teacher.num_keypoints != len(keypoint_names):
        raise TeacherError(
            f"the teacher predicts {counted(teacher.num_keypoints, 'heatmap')}, but the category "
            f"has {counted(len(keypoint_names), 'keypoint')} ({', '.join(keypoint_names[:3])}, "
            "...); use a teacher trained on these keypoints"
        )


def open_fitting_teacher(path: Path, people: People, settings: TeacherSettings) -> Teacher:
    """Open a teacher, and refuse one whose keypoints are not those of the people.

    Raises:
        TeacherError: it cannot be loaded, or predicts another number of heatmaps.
        PeopleError: its keypoints are not those of the people.
    """
    teacher = open_teacher(path, settings)
    require_keypoints(teacher, people.skeleton.keypoint_names)
    if teacher.keypoint_names is not None:
        require_same_names(str(path), teacher.keypoint_names, people)
    return teacher


def require_same_names(source: str, names: tuple[str, ...], people: People) -> None:
    """Refuse keypoints that are not those of the annotations, naming the first difference.

    Raises:
        PeopleError: a name, or the number of them, differs.
    """
    annotated = people.skeleton.keypoint_names
    if names == annotated:
        return
    pairs = zip(names, annotated, strict=False)
    index = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if index is None:
        difference = f"{counted(len(names), 'keypoint')}, the annotations have {len(annotated)}"
    else:
        difference = (
            f"{names[index]!r} as keypoint {index}, the annotations have {annotated[index]!r}"
        )
    raise PeopleError(
        f"{source} has {difference}; evaluate it on people with its keypoints in its order"
    )
