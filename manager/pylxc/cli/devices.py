"""The `device` commands of instances and profiles."""

from __future__ import annotations

import sys

from pylxc.cli.edit import assignments
from pylxc.cli.grammar import Args, Command
from pylxc.errors import BadRequest, Conflict, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.entity import Entity
    from pylxc.cli.session import Session


def _find(devices: dict[str, Any], name: str, owner: dict[str, Any]) -> dict[str, Any]:
    if name in devices:
        return dict(devices[name])
    if name in owner.get("expanded_devices", {}):
        raise BadRequest(
            f"Device {name!r} comes from a profile", hint="override it for this instance: pylxc config device override"
        )
    raise NotFound(f"The device {name!r} doesn't exist")


_TYPES = "=disk|=nic|=none|=proxy|=unix-block|=unix-char"


class Devices:
    """The device commands for things of kind `entity`."""

    def __init__(self, entity: Entity) -> None:
        self._entity = entity

    def _read(self, session: Session, args: Args) -> dict[str, Any]:
        name = session.required(args.words[0], self._entity.what)
        return dict(session.client.request("GET", self._entity.url(name)).metadata)

    def _change(self, session: Session, args: Args, change: Any) -> str:
        """Let `change` work on the devices of the owner, which it is given as well, and write them back."""
        name = session.required(args.words[0], self._entity.what)
        reply = session.client.request("GET", self._entity.url(name))
        fields = self._entity.changeable(reply)
        before, after = fields["devices"], dict(fields["devices"])
        change(after, reply.metadata)
        if before.keys() <= after.keys():
            # This is done when it is answered; a PUT is an operation to be waited for.
            method, fields = "PATCH", {"devices": {key: after[key] for key in after if after[key] != before.get(key)}}
        else:
            method, fields = "PUT", {**fields, "devices": after}
        session.wait(session.client.start(method, self._entity.url(name), fields, if_match=reply.etag))
        return name

    def add(self, session: Session, args: Args) -> None:
        """Add a device."""
        device, kind = args.words[1], args.words[2]
        values = assignments(args.words[3:])

        def change(devices: dict[str, Any], _owner: dict[str, Any]) -> None:
            if device in devices:
                raise Conflict("The device already exists")
            devices[device] = {"type": kind, **values}

        name = self._change(session, args, change)
        if not session.quiet:
            print(f"Device {device} added to {name}")

    def remove(self, session: Session, args: Args) -> None:
        """Remove devices."""
        names = args.words[1:]

        def change(devices: dict[str, Any], owner: dict[str, Any]) -> None:
            for device in names:
                _find(devices, device, owner)
                del devices[device]

        name = self._change(session, args, change)
        if not session.quiet:
            print(f"Device {', '.join(names)} removed from {name}")

    def list(self, session: Session, args: Args) -> None:
        """Print the names of the devices."""
        for device in sorted(self._read(session, args)["devices"]):
            print(device)

    def show(self, session: Session, args: Args) -> None:
        """Print the devices as YAML."""
        from pylxc.cli import yamltext

        sys.stdout.write(yamltext.dump(self._read(session, args)["devices"]))

    def get(self, session: Session, args: Args) -> None:
        """Print an option of a device."""
        owner = self._read(session, args)
        print(_find(owner["devices"], args.words[1], owner).get(args.words[2], ""))

    def set(self, session: Session, args: Args) -> None:
        """Set options of a device."""
        values = assignments(args.words[2:], legacy=True)
        self._update(session, args, values)

    def unset(self, session: Session, args: Args) -> None:
        """Remove an option of a device."""
        self._update(session, args, {args.words[2]: ""})

    def _update(self, session: Session, args: Args, values: dict[str, str]) -> None:
        def change(devices: dict[str, Any], owner: dict[str, Any]) -> None:
            devices[args.words[1]] = _find(devices, args.words[1], owner) | values

        self._change(session, args, change)

    def override(self, session: Session, args: Args) -> None:
        """Copy a device from the profiles into the instance, with changes."""
        device, values = args.words[1], assignments(args.words[2:])

        def change(devices: dict[str, Any], owner: dict[str, Any]) -> None:
            if device in devices:
                raise Conflict("The device already exists")
            if device not in owner.get("expanded_devices", {}):
                raise NotFound("The profile device doesn't exist")
            devices[device] = {**owner["expanded_devices"][device], **values}

        name = self._change(session, args, change)
        if not session.quiet:
            print(f"Device {device} overridden for {name}")

    def group(self, *, override: bool) -> Command:
        """Return the `device` group; `override` is for instances only."""
        word = self._entity.word
        one, what = f"[<remote>:]<{word}>", self._entity.what
        key = f"{one} <device> <key>"
        complete, device = (word, ""), f"{word} device"
        commands = [
            Command(
                "add",
                f"Add {what} devices",
                f"{one} <device> <type> [key=value...]",
                self.add,
                words=(3, None),
                complete=(word, "", _TYPES, ""),
                examples=(
                    (
                        f"{'config' if override else 'profile'} device add {word}1 data disk source=/srv path=/srv",
                        f"Mount the host's /srv in the {'instance' if override else 'instances of the profile'}.",
                    ),
                ),
            ),
            Command(
                "get",
                "Get values for device configuration keys",
                key,
                self.get,
                words=(3, 3),
                complete=(word, device, ""),
            ),
            Command("list", f"List {what} devices", one, self.list, words=(1, 1), aliases=("ls",), complete=complete),
            Command(
                "remove",
                f"Remove {what} devices",
                f"{one} <device>...",
                self.remove,
                words=(2, None),
                aliases=("rm",),
                complete=(word, device),
            ),
            Command(
                "set",
                "Set device configuration keys",
                f"{one} <device> <key>=<value>...",
                self.set,
                words=(3, None),
                complete=(word, device, ""),
            ),
            Command("show", "Show full device configuration", one, self.show, words=(1, 1), complete=complete),
            Command(
                "unset", "Unset device configuration keys", key, self.unset, words=(3, 3), complete=(word, device, "")
            ),
        ]
        if override:
            commands.append(
                Command(
                    "override",
                    "Copy profile inherited devices and override configuration keys",
                    f"{one} <device> [key=value...]",
                    self.override,
                    words=(2, None),
                    complete=complete,
                )
            )
        return Command("device", "Manage devices", sub=tuple(sorted(commands, key=lambda command: command.name)))
