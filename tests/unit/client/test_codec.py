from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("text", ["", "{", '{"a"', "[1,", '"x', "nonsense", "{} {}"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    # In an interpreter that has not imported `json`, as the command's.
    code = f"""
import sys; sys.path.insert(0, "manager")
from pylxc.client import codec
assert "json" not in sys.modules
try:
    codec.loads({text!r})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-S", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip()
