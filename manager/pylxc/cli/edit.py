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
    """Return what stdin holds, None when it is a terminal or closed.

    Raises:
        BadRequest: it holds no text.
    """
    try:
        return None if sys.stdin is None or sys.stdin.isatty() else read_stdin()
    except (OSError, ValueError):
        return None


def read_stdin() -> str:
    """Return what stdin holds to its end.

    Raises:
        BadRequest: it is no text.
    """
    try:
        # Not by sys.stdin itself, which in the locale C takes everything.
        return sys.stdin.buffer.read().decode() if sys.stdin else ""
    except UnicodeDecodeError:
        raise BadRequest("What comes on stdin is no text") from None


def stdin_yaml(what: str) -> dict[str, Any]:
    """Return what stdin says in YAML of a thing that is to be made, `{}` when it is a terminal or empty.

    Args:
        what: the thing, for errors.

    Raises:
        BadRequest: it is no YAML, or no mapping.
    """
    text = stdin_text()
    if not text:
        return {}
    from pylxc.cli import yamltext

    try:
        return yamltext.load(text, what)
    except BadRequest as error:
        raise BadRequest(str(error), hint="it comes from stdin; `< /dev/null` gives none") from None


def ask(question: str) -> str:
    """Ask the user and return the answer, "" where nobody gives one."""
    print(question, end="", flush=True)
    return sys.stdin.readline().strip() if sys.stdin else ""


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
        result[key] = read_stdin() if value == "-" else value
    return result
