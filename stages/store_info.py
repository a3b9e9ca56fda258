"""Teacher store -> a description from its metadata; no view is read."""

import json
from dataclasses import asdict

from pipeline.storage.folder import open_folder
from pipeline.teacher_store.description import facts_of_store
from pipeline.teacher_store.inspection import StoreSummary, summarise_store
from stages.settings.evaluation import StoreInfoConfig


def store_info(config: StoreInfoConfig) -> StoreSummary:
    """Return a summary of a store, complete or not.

    Raises:
        StoreError: there is no store, or its metadata are damaged.
    """
    return summarise_store(open_folder(config.store), config.teacher_name)


def info_as_json(summary: StoreSummary) -> str:
    """Return a summary as indented JSON, with the figures that follow from other fields."""
    document = asdict(summary) | {"bytes_per_view": summary.bytes_per_view}
    for facts, teacher in zip(document["teachers"], summary.teachers, strict=True):
        facts["profile"], facts["dtype"] = teacher.profile.name, teacher.profile.dtype
        facts["is_complete"] = teacher.is_complete
        facts["codec_error"]["rms"] = teacher.codec_error.rms
        if teacher.token_error is not None:
            facts["token_error"]["rms"] = teacher.token_error.rms
    return json.dumps(document, indent=2)


def info_as_lines(summary: StoreSummary) -> list[str]:
    """Return a summary in lines of a name and its value."""
    return [f"{name:<17} {text}" for name, text in facts_of_store(summary)]
