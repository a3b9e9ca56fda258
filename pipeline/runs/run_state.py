"""How far a run is and how long it took, from the files of its folder alone."""

import calendar
import json
import re
import time
from dataclasses import dataclass
from datetime import datetime

from pipeline.config import StageConfig, changed_settings
from pipeline.errors import RunFolderError
from pipeline.runs.checkpoints import read_place
from pipeline.runs.run_folder import RunFolder

_LOG_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


@dataclass(frozen=True)
class RunState:
    """How far a run is."""

    is_begun: bool
    """Whether the folder holds a run, which is then resumed."""
    epochs: int
    """Number of whole epochs that are done."""
    steps: int


def read_state(folder: RunFolder) -> RunState:
    """Read how far a run is.

    Raises:
        RunFolderError: its training state is damaged.
    """
    if not folder.training_state.is_file():
        return RunState(folder.config.is_file(), 0, 0)
    place = read_place(folder.training_state)
    return RunState(True, place.epoch, place.step)


def require_same_settings(
    folder: RunFolder, config: StageConfig, may_differ: frozenset[str]
) -> None:
    """Refuse a run that was begun with other settings: its row would stand for something else.

    may_differ: settings that change no result.

    Raises:
        RunFolderError: a setting differs; names the first one.
    """
    if not folder.config.is_file():
        return
    for name, before, after in changed_settings(folder.read_config(type(config)), config):
        if name not in may_differ:
            raise RunFolderError(
                f"the run in {folder.root} began with {name} = {json.dumps(before)}, now it is "
                f"{json.dumps(after)}; choose another --output, delete that run folder, or set the "
                "former value"
            )


def hours_of(folder: RunFolder) -> float:
    """Return how long a run took: of each start and resume, the time to its last line in log.txt.

    The times have a resolution of a second; the loading of people before the start does not count.
    """
    if not (folder.provenance.is_file() and folder.log.is_file()):
        return 0.0
    starts = [
        calendar.timegm(time.strptime(event["written_at"], "%Y-%m-%dT%H:%M:%SZ"))
        for event in json.loads(folder.provenance.read_bytes())
    ]
    lines = folder.log.read_text(encoding="utf-8", errors="replace").splitlines()
    stamps = [match[0] for line in lines if (match := _LOG_TIME.match(line))]
    logged = [datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S").timestamp() for stamp in stamps]
    seconds = 0.0
    for start, end in zip(starts, [*starts[1:], float("inf")], strict=True):
        seconds += max([at - start for at in logged if start <= at < end], default=0.0)
    return seconds / 3600


def validation_curve(folder: RunFolder, batch_size: int) -> list[tuple[int, float]]:
    """Return (person-views, mean OKS) of every validation; of those without OKS none."""
    return [
        (int(str(line["step"])) * batch_size, float(str(line["mean_oks"])))
        for line in folder.read_metrics()
        if line["event"] == "validation" and line.get("mean_oks") is not None
    ]
