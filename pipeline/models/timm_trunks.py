"""Trunks of timm, the library of image classifiers (huggingface/pytorch-image-models).

A trunk keeps the layers up to the feature map that is used and no others, so that its parameters
and multiply-adds are those of what runs. timm takes seconds to import, so it is imported when the
first trunk is built.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.backbones import Backbone, PixelStatistics


class PretrainedTrunk(Backbone):
    """The first layers of a classifier of timm, for which timm has trained weights."""

    body_prefix: str = ""
    """What stands before timm's names in the names of the trunk's state dict."""

    def __init__(self, name: str, size: dict[str, tuple[int, int]] | None = None) -> None:
        super().__init__()
        self.timm_name = name
        self._size = size or {}

    def pretrained_tensors(self, weights: Path | dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the trained tensors of this trunk by the names of its state dict.

        weights: a file with the classifier's weights, or these weights by timm's names; None: those
            that timm finds in its cache or downloads.

        Raises:
            ConfigError: there are no such weights, or they belong to another classifier.
        """
        tensors = trained_classifier(self.timm_name, self._size, weights)
        return {name: tensors[name.removeprefix(self.body_prefix)] for name in self.state_dict()}


class TimmTrunk(PretrainedTrunk):
    """The layers of a classifier of timm up to its deepest feature map of a wanted stride."""

    body_prefix = "body."

    def __init__(self, name: str, input_size_hw: tuple[int, int], strides: Sequence[int]) -> None:
        """Build the trunk with freshly drawn weights.

        name: timm's, with or without the tag of its weights, such as ``resnet50.a1_in1k``.
        strides: wanted strides of the feature map; the first that the classifier has is taken.

        Raises:
            ConfigError: timm knows no classifier of this name, or it has no such feature map.
        """
        size = _size_argument(name, input_size_hw)
        super().__init__(name, size)
        self.body = create_classifier(name, {"num_classes": 0, **size})
        index, self.num_channels, self.stride = _feature_map(name, self.body, strides)
        self.indices: list[int] = self.body.prune_intermediate_layers(
            [index], prune_norm=True, prune_head=True
        )
        self.pixels = pixels_of(self.body)

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map of images, as ``ConvBackbone``."""
        images = images.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.body.forward_intermediates(
            images, indices=self.indices, output_fmt="NCHW", intermediates_only=True
        )[-1]
        return features


def pixels_of(classifier: Any) -> PixelStatistics:
    """Return the statistics that a classifier's images were normalised with in its training."""
    trained_on = classifier.pretrained_cfg
    return PixelStatistics(tuple(trained_on["mean"]), tuple(trained_on["std"]))


def trained_classifier(
    name: str, arguments: dict[str, Any], weights: Path | dict[str, Tensor] | None
) -> dict[str, Tensor]:
    """Return the state dict of a classifier of timm with trained weights.

    Raises:
        ConfigError: there are no such weights, or they belong to another classifier.
    """
    source: dict[str, Any] = {}
    if isinstance(weights, Path):
        source = {"file": str(weights)}
    elif weights is not None:
        source = {"state_dict": weights}
    if source:
        arguments = {**arguments, "pretrained_cfg_overlay": source}
    try:
        # No random draw of the training may depend on where its weights come from. The classifier
        # keeps its last layer, without which timm passes over tensors of other names in silence.
        with torch.random.fork_rng(devices=[]):
            state: dict[str, Tensor] = create_classifier(
                name, arguments, pretrained=True
            ).state_dict()
            return state
    except Exception as error:  # timm, its hub client and torch raise errors of many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(weights, Path):
            raise ConfigError(
                f"{weights} holds no weights of timm's {name}: {reason}; give the file of that "
                "classifier, or leave --init-weights out"
            ) from error
        raise ConfigError(
            f"timm has no weights of {name} in its cache and could not download them: {reason}; "
            "give a file of them with --init-weights, or start from random weights with "
            "--no-pretrained"
        ) from error


def classifier_shapes(name: str) -> dict[str, torch.Size]:
    """Return the shapes of a classifier of timm by the names of its state dict, in order."""
    with torch.device("meta"):
        return {
            key: tensor.shape for key, tensor in create_classifier(name, {}).state_dict().items()
        }


def create_classifier(name: str, arguments: dict[str, Any], *, pretrained: bool = False) -> Any:
    """Build a classifier of timm; ``arguments`` are those of its constructor."""
    import timm

    return timm.create_model(name, pretrained=pretrained, **arguments)


def require_known(name: str) -> Any:
    """Return the configuration of timm's pretrained weights of a name, which may carry a tag.

    Raises:
        ConfigError: timm has no such network, or no weights of that tag.
    """
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ConfigError(
            f"timm {timm.__version__} has no network {name!r}; "
            + (f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()")
        )
    try:
        return timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ConfigError(
            f"timm {timm.__version__} has no weights of that tag: {error}; leave it out, or see "
            "timm.list_pretrained()"
        ) from error


def _size_argument(name: str, input_size_hw: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Return the argument that tells a network of one image size, such as a ViT, its size."""
    config = require_known(name)
    return {"img_size": input_size_hw} if config is not None and config.fixed_input_size else {}


def _feature_map(name: str, body: nn.Module, strides: Sequence[int]) -> tuple[int, int, int]:
    """Return index, channels and stride of the deepest feature map of the first stride there is."""
    known: Any = getattr(body, "feature_info", ())
    maps = [(entry["num_chs"], entry["reduction"]) for entry in getattr(known, "info", known)]
    can_be_cut = hasattr(body, "prune_intermediate_layers")
    for wanted in strides if can_be_cut else ():
        for index, (channels, stride) in reversed(list(enumerate(maps))):
            if stride == wanted:
                return index, channels, stride
    found = sorted({stride for _, stride in maps}) if can_be_cut else "none"
    raise ConfigError(
        f"timm's {name} has feature maps of stride {found}; expected one of "
        f"{', '.join(map(str, strides))}; choose another network"
    )
