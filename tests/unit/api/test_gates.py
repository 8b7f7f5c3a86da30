from __future__ import annotations

import pytest

from pylxc.api import gates


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("pylxc.api.gates.time.monotonic", lambda: now[0])
    pace = gates.Pace(3, 2.0)
    assert [pace.take() for _ in range(5)] == [0.0, 0.0, 0.0, 0.5, 1.0]
    now[0] += 1.0
    assert pace.take() == 0.5
    now[0] += 1000.0
    assert [pace.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
