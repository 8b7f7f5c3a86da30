"""The command's own settings: `config.json` in $PYLXC_CONF, and `config.json` in /etc/pylxc for all users of the host.

    {"default-remote": "local", "remotes": {"mirror": {"addr": "https://…", "protocol": "simplestreams"}}}

Every call reads the user's, so this is little and imports nothing: most users have no such file.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LOCAL = "local"
FILE = "config.json"


def user_dir() -> str:
    """Return the directory of the user's settings: $PYLXC_CONF, else ~/.config/pylxc."""
    return os.environ.get("PYLXC_CONF") or os.path.expanduser("~/.config/pylxc")


def site_dir() -> str:
    """Return the directory of the settings for all users: $PYLXC_GLOBAL_CONF, else /etc/pylxc."""
    return os.environ.get("PYLXC_GLOBAL_CONF") or "/etc/pylxc"


def read(directory: str) -> dict[str, Any]:
    """Return the settings in a directory, `{}` where there are none.

    Raises:
        BadRequest: they are damaged; the message names the file.
        OSError: they cannot be read.
    """
    path = f"{directory}/{FILE}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    with open(fd, "rb") as file:
        return _parse(path, file.read())


def _parse(path: str, text: bytes) -> dict[str, Any]:
    from pylxc.client import codec
    from pylxc.errors import BadRequest

    try:
        data = codec.loads(text.decode())
    except ValueError as error:
        raise BadRequest(f"{path} is not valid JSON: {error}") from error
    remotes = data.get("remotes", {}) if isinstance(data, dict) else None
    default = data.get("default-remote", LOCAL) if isinstance(data, dict) else None
    if not isinstance(remotes, dict) or not isinstance(default, str):
        raise BadRequest(f"{path} must be a map with the keys default-remote and remotes")
    return dict(data)


def local_project() -> str:
    """Return the project that is worked in on the local server where none is named, "" for the default one."""
    fields = read(user_dir()).get("remotes", {}).get(LOCAL)
    return str(fields.get("project") or "") if isinstance(fields, dict) else ""


def default_remote() -> str:
    """Return the name of the remote that names without one are on."""
    return str(read(user_dir()).get("default-remote") or LOCAL)
