"""`pylxc launch` and `pylxc init`."""

from __future__ import annotations

import sys

from pylxc.cli.edit import assignments, stdin_yaml
from pylxc.cli.grammar import Args, Command, Option, UsageError
from pylxc.cli.port import FORM
from pylxc.cli.port import devices as ports
from pylxc.cli.wait import COMPLETE, CONDITIONS, SECONDS, check, wait
from pylxc.client.http import quote
from pylxc.errors import BadRequest, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session


LAN, BRIDGE = "lan", "br0"
"""The profile of `--lan`, and the bridge that it names."""


def _source(session: Session, image: str) -> dict[str, Any]:
    """Return the source of the create request for `[remote:]image`."""
    remote, name = session.split(image)
    if not name:
        raise BadRequest(f"The name of the image is missing in {image!r}")
    if not remote.is_server:
        return {"type": "image", "mode": "pull", **session.place(remote), "alias": name}
    try:
        target = session.client.get(f"/1.0/images/aliases/{quote(name)}")["target"]
        return {"type": "image", "alias": name, "fingerprint": target}
    except NotFound:
        pass
    try:
        return {"type": "image", "fingerprint": session.client.images.get(name)["fingerprint"]}
    except NotFound:
        hint = f"pylxc image list shows those that are here; is it elsewhere, as recipe:{name} or images:{name}?"
        raise NotFound(f"Image {name!r} not found", hint=hint) from None


def _add_devices(session: Session, args: Args, body: dict[str, Any], command: Command) -> None:
    devices: dict[str, dict[str, str]] = dict(body.get("devices") or {})
    if args.lan and args.network:
        raise UsageError("--lan and --network say different things", command)
    if args.lan:
        _put_on_lan(session, args, body, devices)
    if args.network:
        devices["eth0"] = _nic_on(session, args.network)
    if args.storage:
        session.client.storage_pools.get(args.storage)
        devices["root"] = devices.get("root", {}) | {"type": "disk", "path": "/", "pool": args.storage}
    if args.ip:
        _add_address(session, devices, body.get("profiles"), args.ip)
    devices |= ports(args.port)
    for entry in args.device:
        name, comma, setting = entry.partition(",")
        if not comma:
            raise UsageError(f"Bad device {entry!r}, it must be DEVICE,KEY=VALUE", command)
        if name not in devices:
            devices[name] = _profile_device(session, body.get("profiles"), name)
        devices[name] = devices[name] | assignments([setting])
    if devices:
        body["devices"] = devices


def _put_on_lan(session: Session, args: Args, body: dict[str, Any], devices: dict[str, dict[str, str]]) -> None:
    bridge = _lan_bridge(session)
    body["profiles"] = [*(body.get("profiles") or ([] if args.no_profiles else ["default"])), LAN]
    if bridge != BRIDGE:
        devices["eth0"] = {"type": "nic", "name": "eth0", "nictype": "bridged", "parent": bridge}


def _nic_on(session: Session, name: str) -> dict[str, str]:
    """Return a device on a network or on an interface of the host."""
    network = session.client.networks.get(name)
    if network["managed"]:
        return {"type": "nic", "name": "eth0", "network": name}
    nictype = "bridged" if network["type"] == "bridge" else "macvlan"
    return {"type": "nic", "name": "eth0", "nictype": nictype, "parent": name}


def _add_address(
    session: Session, devices: dict[str, dict[str, str]], profiles: list[str] | None, address: str
) -> None:
    """Give the first NIC of an instance that is to be made an address of its own."""
    every: dict[str, dict[str, str]] = {}
    for profile in ["default"] if profiles is None else profiles:
        every |= session.client.profiles.get(profile)["devices"]
    every |= devices
    found = sorted(name for name, device in every.items() if device.get("type") == "nic")
    if not found:
        raise BadRequest("There is no network interface that could have this address", hint="add one by --network")
    devices[found[0]] = every[found[0]] | {"ipv6.address" if ":" in address else "ipv4.address": address}


def _lan_bridge(session: Session) -> str:
    """Return the bridge on the host's own network: br0, or the one that there is."""
    bridges: dict[str, dict[str, str]] = {
        one["name"]: one["config"] for one in session.client.networks.list() if one["type"] == "bridge"
    }
    if BRIDGE in bridges and bridges[BRIDGE].get("ipv4.address", "none") == "none":
        return BRIDGE
    found = [name for name, config in bridges.items() if config.get("lan.interface")]
    if len(found) > 1:
        raise BadRequest("There is more than one bridge on the host's networks", hint=f"-n {' or -n '.join(found)}")
    if not found:
        hint = f"pylxc network create {BRIDGE} --lan INTERFACE; pylxc network list shows the interfaces"
        raise NotFound("There is no bridge on the host's own network", hint=hint)
    return found[0]


def _profile_device(session: Session, profiles: list[str] | None, name: str) -> dict[str, str]:
    """Return the device that the profiles give, so that a setting of it can be changed for this instance."""
    found: dict[str, str] = {}
    for profile in ["default"] if profiles is None else profiles:
        found = session.client.profiles.get(profile)["devices"].get(name, found)
    return dict(found)


def _body(session: Session, args: Args, command: Command) -> dict[str, Any]:
    body = stdin_yaml("instance configuration")
    if args.config:
        body["config"] = {**(body.get("config") or {}), **assignments(args.config)}
    if args.no_profiles:
        body["profiles"] = []
    elif args.profile:
        body["profiles"] = args.profile
    if args.ephemeral:
        body["ephemeral"] = True
    if args.type:
        body["instance_type"] = args.type
    if args.vm:
        body["type"] = "virtual-machine"
    _add_devices(session, args, body, command)
    return body


def _create(session: Session, args: Args, command: Command) -> str:
    """Create the instance and return its name."""
    words = list(args.words)
    source: dict[str, Any] = {"type": "none"}
    if not args.empty:
        if not words:
            raise UsageError("Too few arguments", command)
        source = _source(session, words.pop(0))
    elif len(words) > 1:
        raise UsageError("--empty takes no image", command)
    name = session.name(words[0] if words else "")
    body = _body(session, args, command)
    if not session.quiet:
        print(f"Creating {name}" if name else "Creating the instance", flush=True)
    from pylxc.cli.progress import begin

    whole = {**body, "name": name, "source": source}
    operation = begin(lambda: session.client.start("POST", "/1.0/instances", whole))
    session.wait(operation, f"Creating {name or 'the instance'}")
    if not session.quiet and (told := operation.metadata.get("first_use")):
        print(told, flush=True)
    if not name:
        name = operation.first("instances")
        print(f"Instance name is: {name}", flush=True)
    _check_network(session, name)
    return name


def _check_network(session: Session, name: str) -> None:
    if session.quiet:
        return
    devices = session.client.instances.get(name)["expanded_devices"]
    if not any(device.get("type") == "nic" for device in devices.values()):
        print(
            "\nThe instance you are starting doesn't have any network attached to it.\n"
            "  To create a new network, use: pylxc network create\n"
            "  To attach a network to an instance, use: pylxc network attach\n",
            file=sys.stderr,
        )


def _init(session: Session, args: Args) -> None:
    _create(session, args, COMMANDS[0])


def _launch(session: Session, args: Args) -> None:
    for condition in args.wait:
        check(condition)
    name = _create(session, args, COMMANDS[1])
    if not session.quiet:
        print(f"Starting {name}", flush=True)
    session.wait(session.client.instances.start(name), f"Starting {name}")
    for condition in args.wait:
        wait(session, name, condition, args.wait_timeout)
    if args.console:
        from pylxc.cli.console import attach

        attach(session, name)


_OPTIONS = (
    Option(
        "-c",
        "--config",
        help="Config key/value to apply to the new instance",
        kind="list",
        complete="instance key=",
    ),
    Option("-d", "--device", help="New key/value to apply to a specific device", kind="list"),
    Option("--empty", help="Create an empty instance"),
    Option("-e", "--ephemeral", help="Ephemeral instance"),
    Option("--ip", help="Address that its (first) network interface always gets", kind="value"),
    Option("--lan", help="Put it on the host's own network, by the bridge br0 (profile lan)"),
    Option("-n", "--network", help="Network name", kind="value", complete="network"),
    Option("--no-profiles", help="Create the instance with no profiles applied"),
    Option("-P", "--port", help=f"Port of the host that leads into it: {FORM}", kind="list"),
    Option("-p", "--profile", help="Profile to apply to the new instance", kind="list", complete="profile"),
    Option("-s", "--storage", help="Storage pool name", kind="value", complete="pool"),
    Option("-t", "--type", help="Instance type", kind="value"),
    Option("--vm", help="Create a virtual machine"),
)
_USAGE = "[<remote>:]<image> [<remote>:][<name>]"
_DETAILS = """
Configuration in YAML (config, devices, profiles, ...) is read from stdin when that is no terminal.
"""

COMMANDS = (
    Command(
        "init",
        "Create instances from images",
        _USAGE,
        _init,
        words=(0, 2),
        aliases=("create",),
        options=_OPTIONS,
        details=_DETAILS,
        examples=(("init recipe:debian/12 c01", "Create an instance."),),
        complete=("image", ""),
    ),
    Command(
        "launch",
        "Create and start instances from images",
        _USAGE,
        _launch,
        words=(0, 2),
        options=(
            *_OPTIONS,
            Option(
                "--console",
                help="Immediately attach to the console",
                kind="value",
                implied="console",
                choices=("console", "vga"),
            ),
            Option("--wait", help=f"Wait until it is ready: {CONDITIONS}", kind="list", complete=COMPLETE),
            Option("--wait-timeout", help="Seconds to wait for each, -1 for ever", kind="int", default=SECONDS),
        ),
        details=_DETAILS,
        examples=(
            ("launch recipe:debian/12 c01", "Create and start an instance; the image is built on first use."),
            ("launch recipe:debian/12 c01 < config.yaml", "The same, configured by config.yaml."),
            ("launch recipe:debian/12 c01 --lan", "The same, as a machine of the host's own network."),
            (
                "launch recipe:debian/12 c01 -P 8080:80 --wait boot",
                "With a port of the host; wait for it.",
            ),
            ("launch recipe:debian/12 c01 -c limits.memory=1GiB -d root,size=10GiB", "The same, with limits."),
        ),
        complete=("image", ""),
    ),
)
