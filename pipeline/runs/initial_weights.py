"""What a network starts from in place of freshly drawn weights."""

import logging
from pathlib import Path

from torch import nn

from pipeline.config import ComponentConfig
from pipeline.runs.checkpoints import load_parts

_logger = logging.getLogger(__name__)


class InitialWeights(ComponentConfig):
    """A weights file of ``train-teacher`` or ``train-student``, and how much of it is taken."""

    weights: Path | None = None
    """None: the network starts as it was drawn."""
    parts: tuple[str, ...] = ("backbone", "encoder")
    """Submodules whose tensors are copied where name and shape agree."""

    def copy_into(self, network: nn.Module) -> None:
        """Copy the parts into a network and log how many tensors they were.

        Raises:
            RunFolderError: the file cannot be read, or a part has no tensor that fits.
        """
        if self.weights is None:
            return
        copied = load_parts(self.weights, network, self.parts)
        _logger.info("started from %d tensors of %s", len(copied), self.weights)


class InitialTeacherWeights(InitialWeights):
    """A teacher of the same architecture is trained on, its head too."""

    parts: tuple[str, ...] = ("backbone", "encoder", "head")
