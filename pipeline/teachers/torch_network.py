"""Teachers that torch runs: trained by `distil train-teacher`, or a published checkpoint."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError, RunFolderError, TeacherError
from pipeline.frames.geometry import SizeHW
from pipeline.machine import choose_device
from pipeline.models.pose_networks import HeatmapTeacher
from pipeline.runs.checkpoints import CheckpointInfo, load_network
from pipeline.runs.published_files import describe_unused, load_published
from pipeline.runs.run_folder import RunFolder
from pipeline.settings import HeatmapFrame, TeacherSettings
from pipeline.teachers.network import Prediction
from pipeline.teachers.teacher import require_settings


class ModuleNetwork:
    """A heatmap network of this project, run by torch."""

    kind: str
    architecture: str
    sha256: str
    heatmap_frame: HeatmapFrame
    keypoint_names: tuple[str, ...] | None
    fixed_batch_size: int | None = None

    def __init__(self, module: HeatmapTeacher, settings: TeacherSettings) -> None:
        """Put a module on the device, and into the number format, of the settings."""
        self.device = choose_device(settings.device)
        self.module = module.eval().to(self.device)
        self._dtype: torch.dtype = getattr(torch, settings.precision)
        if self.device.type == "cuda" and self._dtype == torch.float32:
            # torch lets convolutions of float32 use ten bits of the fraction unless it is told.
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self.input_size_hw: SizeHW = module.input_size_hw
        self.heatmap_size_hw: SizeHW = module.heatmap_size_hw
        self.num_keypoints = module.num_keypoints
        self.token_shape: tuple[int, SizeHW] | None = module.token_shape
        self.num_threads: int | None = None
        if self.device.type == "cpu":
            self.num_threads = settings.num_threads or torch.get_num_threads()

    @torch.inference_mode()
    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
        """Predict raw heatmaps, and tokens if requested, of (B, 3, H, W) normalised crops."""
        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        batch = torch.from_numpy(images).to(self.device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        is_mixed = self._dtype != torch.float32
        with torch.autocast(self.device.type, self._dtype if is_mixed else None, is_mixed):
            output = self.module(batch, with_tokens=with_tokens)
        heatmaps = _on_host(output.heatmaps)
        if output.tokens is None:
            return Prediction(heatmaps)
        keypoint, visual = map(_on_host, output.tokens)
        return Prediction(heatmaps, {"keypoint": keypoint, "visual": visual})

    def execution(self) -> dict[str, Any]:
        """Return the settings that change the last bits of heatmaps, as JSON values."""
        return {
            "library": "torch",
            "device": self.device.type,
            "num_threads": self.num_threads,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        }


class TorchNetwork(ModuleNetwork):
    """A trained heatmap teacher as a network; sizes, frame and pixels are its checkpoint's."""

    kind = "torch"

    def __init__(self, path: Path, settings: TeacherSettings) -> None:
        weights = RunFolder(path).best_weights if path.is_dir() else path
        module, info = load_network(weights)
        if not isinstance(module, HeatmapTeacher) or info.heatmap_frame is None:
            raise TeacherError(
                f"{weights} holds a {info.kind}; expected a teacher from `distil train-teacher`"
            )
        own = {
            "architecture": info.architecture,
            "input_size_hw": info.input_size_hw,
            "heatmap_frame": info.heatmap_frame,
        }
        require_settings(settings, own, weights)
        super().__init__(module, settings)
        self.architecture = info.architecture
        self.sha256 = sha256_of_tensors(module.state_dict())
        self.input_size_hw = info.input_size_hw
        self.heatmap_frame = info.heatmap_frame
        self.num_keypoints = len(info.keypoint_names)
        self.keypoint_names = info.keypoint_names
        self.preprocessing = _preprocessing(settings, info, weights)


class PublishedTeacher(ModuleNetwork):
    """A published checkpoint as a network; its frame, a default, is that of its code.

    A network trained anew by other code keeps names and shapes, so that no setting contradicts it.
    """

    kind = "published"
    keypoint_names: tuple[str, ...] | None = None

    def __init__(self, path: Path, settings: TeacherSettings) -> None:
        try:
            published = load_published(
                path, architecture=settings.architecture, input_size_hw=settings.input_size_hw
            )
        except (ConfigError, RunFolderError) as error:
            raise TeacherError(str(error)) from error
        module = published.network
        if not isinstance(module, HeatmapTeacher):
            raise TeacherError(
                f"{path} holds a student ({module.architecture}); expected a heatmap network"
            )
        super().__init__(module, settings)
        self.architecture = module.architecture
        self.sha256 = sha256_of_tensors(published.tensors)
        self.heatmap_frame = published.heatmap_frame
        unused = describe_unused(path, published)
        self.notes: tuple[str, ...] = () if unused is None else (unused,)


def _on_host(values: Tensor) -> NDArray[np.float32]:
    return np.asarray(values.float().cpu().numpy())


def _preprocessing(settings: TeacherSettings, info: CheckpointInfo, source: Path) -> dict[str, Any]:
    """Return a checkpoint's settings of preprocessing, and refuse options that contradict them."""
    defaults = TeacherSettings()
    known = {
        "mean": info.rgb_mean,
        "std": info.rgb_std,
        "scale": defaults.scale,
        "channel_order": defaults.channel_order,
        "output_name": defaults.output_name,
    }
    require_preprocessing(settings, known, source)
    return known


def require_preprocessing(
    settings: TeacherSettings, known: Mapping[str, Any], source: Path
) -> None:
    """Refuse options that contradict a file's settings of preprocessing.

    An option at its default counts as not given.

    Raises:
        TeacherError: names the option and both values.
    """
    defaults = TeacherSettings()
    for field, value in known.items():
        given = getattr(settings, field)
        if given not in (value, getattr(defaults, field)):
            raise TeacherError(f"{field} is {given} but {source} has {value}; leave the option out")


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over tensors, with their names, types and shapes, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
