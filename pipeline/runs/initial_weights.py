"""Initial weights of a network, copied from another run in place of random ones."""

import logging
from pathlib import Path

from torch import nn

from pipeline.runs.checkpoints import load_parts

_logger = logging.getLogger(__name__)


def copy_initial_weights(network: nn.Module, weights: Path | None, parts: tuple[str, ...]) -> None:
    """Copy parts of a weights file into a network, and log the number of tensors.

    weights: the file; None: the network stays unchanged.
    parts: submodules whose tensors are copied where name and shape agree.

    Raises:
        RunFolderError: the file cannot be read, or a part has no tensor that fits.
    """
    if weights is None:
        return
    copied = load_parts(weights, network, parts)
    _logger.info("initial weights: %d tensors of %s", len(copied), weights)
