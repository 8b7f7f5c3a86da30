"""Ctrl-C while the server begins an operation."""

from __future__ import annotations

import os
import signal
from typing import cast

import pytest

from pylxc.cli.progress import begin
from pylxc.client.operations import Operation


class Begun:
    cancelled = False

    def cancel(self) -> bool:
        self.cancelled = True
        return True


@pytest.mark.parametrize("times", [0, 1, 2])
def test_what_is_interrupted_as_it_begins_is_cancelled(times: int) -> None:
    operation = Begun()

    def start() -> Operation:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        return cast(Operation, operation)

    if times < 2:
        assert begin(start) is cast(object, operation)
    else:
        with pytest.raises(KeyboardInterrupt):
            begin(start)
    assert operation.cancelled == (times == 1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
