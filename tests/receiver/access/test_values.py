"""Values that several tables of receiver.toml have."""

from __future__ import annotations

from datetime import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fullsend_receiver.access.values import AbsolutePath, DailyTime


@pytest.mark.parametrize(("said", "found"), [("03:30", time(3, 30)), ("never", None), (time(1), time(1))])
def test_time_of_day(said: object, found: time | None) -> None:
    assert TypeAdapter[Any](DailyTime).validate_python(said) == found


@pytest.mark.parametrize("said", ["3:30", "24:00", "noon", 7])
def test_what_is_no_time_of_day(said: object) -> None:
    with pytest.raises(ValidationError, match="is not a time of day"):
        TypeAdapter[Any](DailyTime).validate_python(said)


def test_absolute_path() -> None:
    assert TypeAdapter(AbsolutePath).validate_python("/a/b") == Path("/a/b")
    with pytest.raises(ValidationError, match="is not an absolute path"):
        TypeAdapter(AbsolutePath).validate_python("a/b")
