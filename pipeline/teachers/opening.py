"""Opens the file of a teacher, and refuses a teacher of other keypoints than the people's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.coco.people import People
from pipeline.errors import PeopleError, TeacherError
from pipeline.settings import DeviceName, TeacherSettings
from pipeline.teachers.teacher import Teacher
from pipeline.wording import counted


def open_teacher(path: Path, settings: TeacherSettings) -> Teacher:
    """Open an ONNX file, or the weights or run folder of a teacher trained here.

    Raises:
        TeacherError: the file is missing, is of no known kind, or is no heatmap network.
    """
    if not path.exists():
        raise TeacherError(
            f"teacher {path} does not exist; expected a .onnx file, a .safetensors file or the run "
            "folder of `distil train-teacher`"
        )
    if path.suffix == ".onnx":
        from pipeline.teachers.onnx_network import OnnxNetwork

        return Teacher(OnnxNetwork(path, settings), settings)
    if path.is_dir() or path.suffix == ".safetensors":
        from pipeline.teachers.torch_network import TorchNetwork

        network = TorchNetwork(path, settings)
        return Teacher(network, settings.model_copy(update=network.preprocessing))
    raise TeacherError(
        f"teacher {path} is of no known kind; expected a .onnx file, a .safetensors file or the "
        "run folder of `distil train-teacher`"
    )


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
