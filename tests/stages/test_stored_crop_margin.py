"""Crops with a margin from cache to repair: the same bytes again, and another margin refused."""

from typing import Any

import pytest

from pipeline.teacher_store.reader import TeacherStore
from stages.cache_teacher import cache_teacher
from stages.settings.evaluation import StoreInfoConfig, StoreRepairConfig, StoreVerifyConfig
from stages.store_info import info_as_lines, store_info
from stages.store_repair import store_repair
from stages.store_verify import store_verify
from store_schemas.checking import check_store
from store_schemas.errors import IdentityError


def test_a_store_with_a_margin_is_verified_repaired_and_resumed_with_the_same(inputs: Any) -> None:
    how = {"crops": True, "crop_margin": 0.25, "views": 0}
    cache_teacher(inputs.config(**how))
    before = inputs.digests()
    opened = TeacherStore.open(inputs.store)
    assert opened.read_wide_crops([0], [0]).crops.shape == (1, 384, 288, 3)
    assert opened.read_crops([0], [0]).shape == (1, 256, 192, 3)
    teacher = inputs.folder / "teacher.onnx"
    given = {"store": str(inputs.store), "teacher": teacher, "images": inputs.images}
    assert not any(store_verify(StoreVerifyConfig(**given)).problems.values())
    check_store(inputs.store)
    lines = info_as_lines(store_info(StoreInfoConfig(store=str(inputs.store))))
    assert any("with a margin of 64 rows and 48 columns on each side" in line for line in lines)
    (path,) = (inputs.store / "teachers/teacher/crops").glob("c.0.*")
    path.write_bytes(path.read_bytes()[:-1])
    store_repair(StoreRepairConfig(**given))
    assert inputs.digests() == before
    with pytest.raises(IdentityError, match=r"'crops.length' differs: the store has 332800, now"):
        cache_teacher(inputs.config(**{**how, "crop_margin": 0}), resume=True)
