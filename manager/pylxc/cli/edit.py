"""YAML by hand, from stdin or in the user's editor; KEY=VALUE on the command line."""

from __future__ import annotations

import os
import sys

from pylxc.errors import BadRequest, PylxcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def stdin_text() -> str | None:
    """Return what stdin holds, None when it is a terminal or closed."""
    try:
        return None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    except (OSError, ValueError):
        return None


def run_editor(text: bytes, suffix: str = ".yaml") -> bytes:
    """Return `text` as the user leaves it in $VISUAL, $EDITOR or vi.

    Raises:
        BadRequest: the editor fails.
    """
    import shlex
    import subprocess
    import tempfile

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="pylxc-edit-") as directory:
        path = os.path.join(directory, f"edit{suffix}")
        with open(path, "wb") as file:
            file.write(text)
        try:
            done = subprocess.run([*shlex.split(editor), path], check=False)
        except OSError as error:
            raise BadRequest(f"Failed to run the editor {editor!r}", hint="set $EDITOR") from error
        if done.returncode:
            raise BadRequest(f"The editor {editor!r} failed with status {done.returncode}")
        with open(path, "rb") as file:
            return file.read()


def edit(what: str, data: object, apply: Callable[[dict[str, Any]], object]) -> None:
    """Let the user change `data` and hand the result to `apply`; after an error the editor opens again and shows it.

    Args:
        what: what is edited, for the comment at the top and for errors.
        data: what it is now.
        apply: called with the new mapping.
    """
    from pylxc.cli import yamltext

    given = stdin_text()
    if given is not None:
        apply(yamltext.load(given, what))
        return
    head = f"# This is the {what} as YAML. Lines that begin with # are ignored.\n\n"
    before = (head + yamltext.dump(data)).encode()
    text = run_editor(before)
    while text != before:
        try:
            apply(yamltext.load(text.decode(errors="replace"), what))
            return
        except PylxcError as error:
            print(f"Error: {error}\nPress enter to open the editor again or ctrl+c to abort", file=sys.stderr)
            if not sys.stdin.readline():
                raise
            message = f"# Error: {error}\n".encode()
            text = run_editor(message + text).removeprefix(message)


def assignments(words: Sequence[str], *, legacy: bool = False) -> dict[str, str]:
    """Return the mapping that `KEY=VALUE` words spell.

    Args:
        words: the words; a value of "-" is read from stdin.
        legacy: accept the two words `KEY VALUE` as well, as `lxc` does.

    Raises:
        BadRequest: a word has no "=".
    """
    if legacy and len(words) == 2 and "=" not in words[0]:
        words = [f"{words[0]}={words[1]}"]
    result = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise BadRequest(f"Invalid KEY=VALUE: {word!r}")
        result[key] = sys.stdin.read() if value == "-" else value
    return result
