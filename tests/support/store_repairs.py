"""Damage to a teacher store, and the repair of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.settings.evaluation import StoreRepairConfig
from stages.store_repair import RepairResult, store_repair

TEACHER = "teachers/teacher"


def repair(
    inputs: Any, say: Callable[[str], None] = lambda _: None, **settings: Any
) -> RepairResult:
    """Repair the store of the inputs, with their teacher and images unless told otherwise."""
    given = {"teacher": inputs.folder / "teacher.onnx", "images": inputs.images}
    config = StoreRepairConfig(store=str(inputs.store), **(given | settings))
    return store_repair(config, say=say)


def flip(path: Path, position: int = -9) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def shard_file(inputs: Any, name: str, shard: int) -> Path:
    """Return the file of an array's shard."""
    (path,) = (inputs.store / TEACHER / name).glob(f"c.{shard}*")
    return Path(path)
