"""Where the daemon's log goes."""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure(logfile: str, *, debug: bool, verbose: bool) -> None:
    """Send the log to stderr and, when named, to a file; warnings and up unless more is asked for.

    Records of pylxc's own are always made, whatever of them is written: listeners of logging events get them all.

    Raises:
        OSError: the file cannot be written.
    """
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if logfile:
        handlers.append(logging.FileHandler(logfile, encoding="utf-8"))
    root = logging.getLogger()
    for handler in handlers:
        handler.setLevel(level)
        handler.setFormatter(logging.Formatter(_FORMAT))
        root.addHandler(handler)
    logging.getLogger("pylxc").setLevel(logging.DEBUG)
