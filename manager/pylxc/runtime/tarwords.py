"""Words for GNU tar's command line."""

from __future__ import annotations

import re

_IN_PATTERN = re.compile(r"[][\\.*^$,]")
_IN_REPLACEMENT = re.compile(r"[\\&,]")


def renamed(old: str, new: str) -> str:
    """Return the word that has a directory `old`, and what is in it, called `new` in or out of an archive.

    Hard links' targets are renamed as well, symbolic links' are not. See: tar(1), --transform
    """
    pattern, replacement = _IN_PATTERN.sub(r"\\\g<0>", old), _IN_REPLACEMENT.sub(r"\\\g<0>", new)
    return f"--transform=flags=rh;s,^{pattern}\\(/\\|$\\),{replacement}\\1,"
