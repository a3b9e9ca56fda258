"""ViTPose in the format of Hugging Face's transformers: ``VitPoseForPoseEstimation``.

https://huggingface.co/docs/transformers/model_doc/vitpose. The model's own folder states the size
of its crops, the scale of its pixels, their mean and their standard deviation. Its image processor
warps boxes as UDP does (Huang et al., CVPR 2020), as does its decoding, so that its heatmaps are in
the frame ``udp``. A crop here lies within a pixel of that processor's.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import TeacherError
from pipeline.models.heads import HeatmapOutput
from pipeline.models.pose_networks import HeatmapTeacher
from pipeline.settings import HUB, TeacherSettings, is_on_hub
from pipeline.teachers.teacher import require_settings
from pipeline.teachers.torch_network import (
    ModuleNetwork,
    require_preprocessing,
    sha256_of_tensors,
)
from pipeline.wording import counted, one_line

_MODEL_TYPE = "vitpose"
_MOST_NAMES = 3


class HuggingFaceTeacher(ModuleNetwork):
    """A pose network of transformers; sizes and pixels are those of its folder."""

    kind = "huggingface"
    keypoint_names: tuple[str, ...] | None = None

    def __init__(self, path: Path, settings: TeacherSettings) -> None:
        """Load the model of a folder, or of the hub.

        path: the folder, or ``hf:OWNER/NAME``, perhaps with ``@REVISION``.

        Raises:
            TeacherError: transformers is not installed, there is no such model, or it is none of
                the kind that is supported.
        """
        transformers = _transformers(path)
        source, revision = str(path), None
        if is_on_hub(path):
            source, _, revision = source.removeprefix(HUB).partition("@")
        arguments: dict[str, Any] = {"revision": revision} if revision else {}
        config = _loaded(path, lambda: transformers.AutoConfig.from_pretrained(source, **arguments))
        _require_vitpose(path, config)
        with _quiet(transformers.logging):
            model, info = _loaded(
                path,
                lambda: transformers.VitPoseForPoseEstimation.from_pretrained(
                    source,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # named and refused below
                    dtype=torch.float32,
                    **arguments,
                ),
            )
        _require_whole(path, info)
        module = _VitPose(model, config)
        super().__init__(module, settings)
        self.architecture = module.architecture
        self.sha256 = sha256_of_tensors(model.state_dict())
        self.heatmap_frame = "udp"
        require_settings(settings, {"input_size_hw": module.input_size_hw}, path)
        self.preprocessing, self.notes = _preprocessing(path, transformers, source, arguments)
        require_preprocessing(settings, self.preprocessing, path)
        self.notes += tuple(
            f"tensor {name} of {path} not used by {self.architecture}"
            for name in sorted(info["unexpected_keys"])
        )


class _VitPose(HeatmapTeacher):
    """The model as a heatmap network of this project."""

    def __init__(self, model: Any, config: Any) -> None:
        super().__init__()
        backbone = config.backbone_config
        head = "simple" if config.use_simple_decoder else "classic"
        self.architecture = (
            f"VitPoseForPoseEstimation, {backbone.num_hidden_layers} layers of "
            f"{backbone.hidden_size}, {head} head"
        )
        self.input_size_hw = _pair(backbone.image_size)
        self.model = model
        with torch.inference_mode():
            heatmaps = model.eval()(pixel_values=torch.zeros(1, 3, *self.input_size_hw)).heatmaps
        self.num_keypoints = heatmaps.shape[1]
        self.heatmap_size_hw = (heatmaps.shape[2], heatmaps.shape[3])

    def forward(self, images: Tensor, with_tokens: bool = False) -> HeatmapOutput:
        """Predict heatmaps of (B, 3, H, W) normalised crops; there are no tokens to return."""
        self.check_crops(images)
        return HeatmapOutput(self.model(pixel_values=images).heatmaps)


def _pair(size: Any) -> tuple[int, int]:
    """Return height and width of a size, which a configuration may give as one number."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def _transformers(path: Path) -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise TeacherError(
            f"{path} needs transformers, which is not installed; install the extra huggingface (uv "
            "sync --extra huggingface)"
        ) from error


def _loaded(path: Path, load: Any) -> Any:
    try:
        return load()
    except Exception as error:  # transformers, its hub client and torch raise errors of many kinds
        raise TeacherError(
            f"transformers cannot load {path}: {one_line(error)[:200]}; give the folder that "
            f"save_pretrained wrote, or {HUB}OWNER/NAME of a model on the hub"
        ) from error


def _require_vitpose(path: Path, config: Any) -> None:
    if config.model_type != _MODEL_TYPE:
        raise TeacherError(
            f"{path} is a model of type {config.model_type}; expected {_MODEL_TYPE}, the type of "
            "VitPoseForPoseEstimation; export it to ONNX (docs/teachers.md) and give that file"
        )
    num_experts = getattr(config.backbone_config, "num_experts", 1)
    if num_experts > 1:
        raise TeacherError(
            f"{path} is a ViTPose+ with {counted(num_experts, 'expert')}, one for each data set; "
            "expected a model without experts; export it to ONNX with the one of your keypoints "
            "(docs/teachers.md) and give that file"
        )


def _require_whole(path: Path, info: dict[str, Any]) -> None:
    """Refuse a model some of whose tensors the folder lacks, which would be drawn at random."""
    missing = sorted(info["missing_keys"])
    mismatched = [str(entry[0]) for entry in info["mismatched_keys"]]
    wrong = [*(f"{name} is missing" for name in missing),
             *(f"{name} has another shape" for name in mismatched)]  # fmt: skip
    if wrong:
        more = f" and {len(wrong) - _MOST_NAMES} more" if len(wrong) > _MOST_NAMES else ""
        raise TeacherError(
            f"{path} has not all tensors of its network: {', '.join(wrong[:_MOST_NAMES])}{more}; "
            "give a whole VitPoseForPoseEstimation"
        )


def _preprocessing(
    path: Path, transformers: Any, source: str, arguments: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings of the model's image processor, and a note where it has none."""
    name = "preprocessor_config.json"
    try:
        found, _ = transformers.ImageProcessingMixin.get_image_processor_dict(source, **arguments)
    except OSError:
        note = f"{path} has no {name}: pixels are normalised with mean and std of ImageNet"
        return {}, (note,)
    mean, std = found.get("image_mean"), found.get("image_std")
    scale = found.get("rescale_factor", 1 / 255) if found.get("do_rescale", True) else 1.0
    if not found.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    given = {"mean": mean and tuple(mean), "std": std and tuple(std), "scale": scale}
    return {field: value for field, value in given.items() if value is not None}, ()


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Keep transformers from logging what an error says, and from drawing a bar of its own."""
    level, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bar:
            logging.enable_progress_bar()
