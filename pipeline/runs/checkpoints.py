"""Weights on disk: safetensors with a JSON header, never pickled objects.

A weights file holds one network and all that is needed to use it (``CheckpointInfo``). A training
state holds network, criterion, optimiser, epoch, step and the sums of the epoch so far; the
learning rate, the order of people and every random draw follow from the step and the seed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.coco.people import Skeleton
from pipeline.coco.poses import ScoreKind, ScoreRule
from pipeline.config import ComponentConfig
from pipeline.errors import ConfigError, RunFolderError
from pipeline.frames.geometry import SizeHW
from pipeline.frames.pixels import PixelNormalisation
from pipeline.models.pose_networks import (
    HeatmapTeacher,
    PoseNetwork,
    Student,
    build_student,
    build_teacher,
)
from pipeline.settings import IMAGENET_MEAN, IMAGENET_STD, HeatmapFrame, Precision
from pipeline.storage.files import explained, publish

_HEADER_KEY = "distil"

HeaderT = TypeVar("HeaderT", bound=BaseModel)


class CheckpointInfo(ComponentConfig):
    """Description of a network: architecture, input, skeleton, and scores of its poses."""

    kind: Literal["student", "teacher"]
    architecture: str
    input_size_hw: SizeHW
    padding: float
    heatmap_size_hw: SizeHW | None = None
    heatmap_frame: HeatmapFrame | None = None
    has_shear: bool = False
    """Whether a student's head has a sixth channel, the shear of its Gaussians."""
    keypoint_names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    flip_indices: tuple[int, ...]
    sigmas: tuple[float, ...]
    upper_body: tuple[int, ...]
    lower_body: tuple[int, ...]
    rgb_mean: tuple[float, float, float] = IMAGENET_MEAN
    rgb_std: tuple[float, float, float] = IMAGENET_STD
    score_rule: ScoreKind
    scored_keypoints: tuple[int, ...]
    """Indices of the keypoints whose score was trained; the scores of others are meaningless."""
    store_fingerprint: str | None = None
    store_content: str | None = None
    seed: int
    epoch: int
    step: int

    @property
    def pixels(self) -> PixelNormalisation:
        """Normalisation of the crops that the network was trained on."""
        return PixelNormalisation(self.rgb_mean, self.rgb_std)

    @property
    def skeleton(self) -> Skeleton:
        return Skeleton(
            keypoint_names=self.keypoint_names,
            edges=self.edges,
            flip_indices=self.flip_indices,
            sigmas=self.sigmas,
            upper_body=self.upper_body,
            lower_body=self.lower_body,
        )

    @property
    def rule(self) -> ScoreRule:
        """Rule of the scores of poses; 1 for each pose while no keypoint's score was trained."""
        if self.score_rule == "one" or not self.scored_keypoints:
            return ScoreRule("one")
        return ScoreRule(scored_keypoints=self.scored_keypoints)


DecidingFigure = Literal["AP", "mean_pck"]
"""Name of the validation figure whose highest value chooses the best weights."""


class TrainingPlace(ComponentConfig):
    """How far a training is."""

    version: Literal[2] = 2
    """Version of the arithmetic: a training of another version cannot be resumed bit for bit."""
    epoch: int
    """Number of epochs that are done."""
    step: int
    """Number of steps that are done, those of the running epoch included."""
    epoch_sums: dict[str, float] = Field(default_factory=dict)
    """Sums of the loss and of each term over the steps of the running epoch."""
    epoch_facts: dict[str, Any] = Field(default_factory=dict)
    """Further entries of the running epoch's line of metrics.jsonl, so far."""
    precision: Precision = "float32"
    """Number format of the forward pass, in which the training goes on."""
    gradient_scale: tuple[float, int] | None = None
    """Scale of float16 gradients, and the number of steps since it last changed."""
    best_ap: float | None = None
    best_pck: float | None = None
    """Highest PCK so far, where the best weights are chosen by it."""
    scored_keypoints: tuple[int, ...] = ()


def describe_network(
    network: PoseNetwork,
    skeleton: Skeleton,
    *,
    padding: float,
    seed: int,
    score_rule: ScoreKind,
    heatmap_frame: HeatmapFrame | None = None,
    store_fingerprint: str | None = None,
    store_content: str | None = None,
) -> CheckpointInfo:
    """Return the description of a network that has not been trained yet."""
    return CheckpointInfo(
        kind=network.role,
        architecture=network.architecture,
        input_size_hw=network.input_size_hw,
        padding=padding,
        heatmap_size_hw=network.heatmap_size_hw,
        heatmap_frame=heatmap_frame,
        has_shear=network.has_shear,
        keypoint_names=skeleton.keypoint_names,
        edges=skeleton.edges,
        flip_indices=skeleton.flip_indices,
        sigmas=skeleton.sigmas,
        upper_body=skeleton.upper_body,
        lower_body=skeleton.lower_body,
        rgb_mean=network.pixels.mean,
        rgb_std=network.pixels.std,
        score_rule=score_rule,
        scored_keypoints=(),
        store_fingerprint=store_fingerprint,
        store_content=store_content,
        seed=seed,
        epoch=0,
        step=0,
    )


def save_weights(
    path: Path, network: nn.Module, info: CheckpointInfo, *, as_float16: bool = False
) -> None:
    """Publish a network's weights with ``info`` in the header.

    as_float16: store float32 tensors as float16; ``load_network`` returns them as float32.
    """
    tensors = {}
    for name, tensor in network.state_dict().items():
        halve = as_float16 and tensor.dtype == torch.float32
        tensors[name] = _plain(tensor.half() if halve else tensor)
    _publish(path, save(tensors, {_HEADER_KEY: info.model_dump_json()}))


def load_network(path: Path) -> tuple[Student | HeatmapTeacher, CheckpointInfo]:
    """Rebuild the network of a weights file, in evaluation mode.

    Raises:
        RunFolderError: there is no such file, or it does not hold a network of this program.
    """
    info, tensors = _read(path, CheckpointInfo)
    num_keypoints = len(info.keypoint_names)
    try:
        network: Student | HeatmapTeacher
        if info.kind == "student":
            network = build_student(info.architecture, num_keypoints, info.has_shear)
        else:
            network = build_teacher(info.architecture, num_keypoints)
    except ConfigError as error:
        raise RunFolderError(f"{path}: {error}") from error
    _fill(network, tensors, path)
    return network.eval(), info


def save_training_state(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    place: TrainingPlace,
) -> None:
    """Publish all that is needed to resume a training exactly.

    modules: all that has weights or statistics: the network and the criterion, by name.
    """
    tensors = {
        f"{owner}/{name}": _plain(tensor)
        for owner, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"optimizer/{index}/{name}"] = _plain(torch.as_tensor(value))
    _publish(path, save(tensors, {_HEADER_KEY: place.model_dump_json()}))


def read_info(path: Path) -> CheckpointInfo:
    """Return the description of the network of a weights file.

    Raises:
        RunFolderError: there is no such file, or it does not hold a network of this program.
    """
    return _read(path, CheckpointInfo)[0]


def read_place(path: Path) -> TrainingPlace:
    """Return how far the training of a training state is.

    Raises:
        RunFolderError: there is no such file, or it is no training state.
    """
    return _read(path, TrainingPlace)[0]


def check_training_state(path: Path) -> None:
    """Raise RunFolderError for a training state of an earlier version, if there is one."""
    if path.is_file() and "version" not in _read(path, TrainingPlace)[0].model_fields_set:
        raise RunFolderError(
            f"{path} was written by an earlier version, which rounded normalised pixels otherwise, "
            "so the run cannot be resumed exactly; start another run, from its weights if you like "
            "(--init-weights)"
        )


def load_training_state(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> TrainingPlace:
    """Load a training state into the modules that it was saved from, and their new optimiser.

    Raises:
        RunFolderError: there is no such file, or it belongs to another network or criterion.
    """
    place, tensors = _read(path, TrainingPlace)
    weights: dict[str, dict[str, Tensor]] = {owner: {} for owner in modules}
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, rest = name.partition("/")
        if owner in weights:
            weights[owner][rest] = tensor
        else:
            index, _, field = rest.partition("/")
            states.setdefault(int(index), {})[field] = tensor
    for owner, module in modules.items():
        _fill(module, weights[owner], path)
    weights_in_order = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, state in states.items():
        for field, tensor in state.items():
            state[field] = _laid_out_like(weights_in_order[number], tensor)
    # The groups carry the settings, which come from the configuration and the schedule.
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
    return place


def has_header(path: Path) -> bool:
    """Return whether a file holds weights that this program wrote."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return _HEADER_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name.

    Raises:
        RunFolderError: there is no such file, or it does not hold a network of this program.
    """
    return _read(path, CheckpointInfo)[1]


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu").contiguous()


def _laid_out_like(weight: Tensor, tensor: Tensor) -> Tensor:
    """Return an optimiser's moment in the memory order of its weight, as fused optimisers need."""
    if tensor.shape != weight.shape:
        return tensor  # the number of steps
    return torch.empty_like(weight, device=tensor.device, requires_grad=False).copy_(tensor)


def _read(path: Path, header: type[HeaderT]) -> tuple[HeaderT, dict[str, Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(_HEADER_KEY, "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise RunFolderError(f"there is no file {path}; give the path of saved weights") from error
    except (SafetensorError, OSError) as error:
        raise RunFolderError(f"{path} is not a whole safetensors file: {error}") from error
    try:
        return header.model_validate_json(text), tensors
    except ValidationError as error:
        raise RunFolderError(
            f"{path} has no header of this program ({header.__name__}); give a file that "
            "train-student or train-teacher wrote"
        ) from error


def _fill(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    own = network.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        expected, got = own.get(name), tensors.get(name)
        if expected is None or got is None or expected.shape != got.shape:
            raise RunFolderError(
                f"{path}: tensor {name} is {_shape(got)} in the file and {_shape(expected)} in the "
                "network; the file belongs to another architecture or another version"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else str(tuple(tensor.shape))


def _publish(path: Path, data: bytes) -> None:
    with explained(path, len(data)):
        publish(path, data)
