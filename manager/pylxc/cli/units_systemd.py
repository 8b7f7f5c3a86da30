"""The systemd units of the daemon: started by the first use of its socket; containers outlive it."""

from __future__ import annotations

import os
import sys

from pylxc.errors import BadRequest, Unavailable
from pylxc.paths import DEFAULT_DIR, Paths

DIRECTORY = "/etc/systemd/system"

_SOCKET = """\
[Unit]
Description=pylxc: socket of the system container manager
RequiresMountsFor={root}

[Socket]
ListenStream={socket}
SocketMode=0660
SocketGroup={group}
DirectoryMode=0711
Service=pylxc.service

[Install]
WantedBy=sockets.target
"""

# KillMode=process leaves the monitors of running containers alone when the daemon stops or is upgraded;
# Delegate=yes keeps systemd's hands off the cgroups below it, and OOMPolicy=continue off the daemon when it is a guest
# that runs out of memory. What must not be here: whatever needs a mount namespace (Protect*, Private*: the mounts of
# one daemon would be out of reach for the next) and whatever processes inherit (NoNewPrivileges, SystemCallFilter,
# Restrict*, LockPersonality: guests would have it too). The capabilities that are left out guests get back with their
# user namespace.
_SERVICE = """\
[Unit]
Description=pylxc: system container manager
Requires=pylxc.socket
After=pylxc.socket network-online.target local-fs.target remote-fs.target lxcfs.service apparmor.service
Wants=network-online.target pylxc-instances.service
RequiresMountsFor={root}

[Service]
Type=notify
{environment}ExecStart={daemon} --group {group}
ExecReload={command} admin reload --timeout 90
KillMode=process
Delegate=yes
OOMPolicy=continue
KeyringMode=private
CapabilityBoundingSet=~CAP_SYS_TIME CAP_SYS_RAWIO CAP_SYS_PACCT CAP_WAKE_ALARM CAP_BLOCK_SUSPEND
Restart=on-failure
RestartPreventExitStatus=3
TimeoutStartSec=600
TimeoutStopSec=60
LimitNOFILE=1048576
LimitMEMLOCK=infinity
TasksMax=infinity

[Install]
Also=pylxc.socket
WantedBy=multi-user.target
"""

# Active from the daemon's first start on, and stopped only when the host goes down: this is what shuts the containers
# down in time. A client, it needs nothing but the socket.
_INSTANCES = """\
[Unit]
Description=pylxc: clean stop of the containers when the host goes down
After=pylxc.service
Requires=pylxc.socket

[Service]
Type=oneshot
RemainAfterExit=yes
{environment}ExecStart={command} admin waitready --timeout 600
ExecStop={command} admin shutdown --timeout 600
TimeoutStartSec=610
TimeoutStopSec=610
CapabilityBoundingSet=
NoNewPrivileges=yes
LockPersonality=yes
PrivateDevices=yes
PrivateNetwork=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=read-only
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""


def units(group: str) -> dict[str, str]:
    """Return the text of every unit by its file name."""
    folder = os.path.dirname(os.path.abspath(sys.argv[0]))
    beside = {name: os.path.join(folder, name) for name in ("pylxc", "pylxcd")}
    module = {"pylxc": "pylxc.cli.main", "pylxcd": "pylxc.daemon.main"}
    command = {
        name: path if os.access(path, os.X_OK) else f"{sys.executable} -m {module[name]}"
        for name, path in beside.items()
    }
    paths = Paths()
    values = {
        "group": group,
        "root": paths.root,
        "socket": paths.socket,
        "daemon": command["pylxcd"],
        "command": command["pylxc"],
        "environment": "" if paths.root == DEFAULT_DIR else f"Environment=PYLXC_DIR={paths.root}\n",
    }
    texts = {"pylxc.socket": _SOCKET, "pylxc.service": _SERVICE, "pylxc-instances.service": _INSTANCES}
    return {name: text.format(**values) for name, text in texts.items()}


def text(group: str) -> str:
    """Return all units, each below a comment with its name."""
    return "\n".join(f"# {DIRECTORY}/{name}\n{unit}" for name, unit in units(group).items())


def install(group: str, *, quiet: bool) -> None:
    """Write the units and enable them.

    Raises:
        BadRequest: the caller is not root, or the host does not run systemd.
    """
    if os.geteuid() != 0:
        raise BadRequest("Only root can install units", hint="sudo pylxc admin units --install")
    if not os.path.isdir("/run/systemd/system"):
        raise BadRequest("This host does not run systemd", hint="start pylxcd by hand, or let the command start it")
    for name, unit in units(group).items():
        path = os.path.join(DIRECTORY, name)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(unit)
        os.replace(f"{path}.new", path)
    _systemctl("daemon-reload")
    _systemctl("enable", "pylxc.service", "pylxc-instances.service")
    _systemctl("enable", "--now", "pylxc.socket")
    if not quiet:
        print("pylxc.socket is active: the first command starts the daemon")


def _systemctl(*words: str) -> None:
    import subprocess

    done = subprocess.run(["systemctl", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"systemctl {' '.join(words)} failed: {done.stderr.strip()}")
