from __future__ import annotations

import math

from fullsend_receiver.store.locks import lock_end


def test_end_of_a_lock_is_a_time_or_a_person_s_doing() -> None:
    assert lock_end(0.0) == "1970-01-01T00:00:00Z"
    assert lock_end(math.inf) == "its legal hold is removed"
