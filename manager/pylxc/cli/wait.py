"""`pylxc wait`, and what `launch --wait` does."""

from __future__ import annotations

from pylxc.cli.grammar import Args, Command, Option, UsageError
from pylxc.errors import NotSupported, PylxcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session

SECONDS = 60
TIMED_OUT = 124
"""The exit status when the time is up, as timeout(1) has it."""

CONDITIONS = "network|ip|ipv4|ipv6|port:N|port:N/udp|exec|boot|running|stopped"
COMPLETE = "=network|=ip|=ipv4|=ipv6|=port:|=exec|=boot|=running|=stopped"


def check(condition: str) -> None:
    """Check a condition before anything is done that it is to be waited for.

    Raises:
        UsageError: there is no such condition.
    """
    kind, _, port = condition.partition(":")
    number, _, protocol = port.partition("/")
    is_port = kind == "port" and number.isdecimal() and 0 < int(number) < 1 << 16 and protocol in {"", "tcp", "udp"}
    if not is_port and condition not in CONDITIONS.replace("port:N|port:N/udp|", "").split("|"):
        raise UsageError(f"Unknown condition {condition!r}: it must be one of {CONDITIONS}")


def wait(session: Session, name: str, condition: str, timeout: int) -> None:
    """Wait until an instance is ready.

    Args:
        session: of this call.
        name: the instance.
        condition: one of `CONDITIONS`.
        timeout: seconds, -1 for ever.

    Raises:
        PylxcError: it does not come to that; `exit_code` is `TIMED_OUT` when the time is up.
    """
    if not session.client.has_extension("pylxc_wait"):
        raise NotSupported('The server is missing the required "pylxc_wait" API extension')
    from pylxc.cli.progress import begin

    operation = begin(lambda: session.client.instances.wait(name, condition, timeout=timeout))
    try:
        session.wait(operation, f"Waiting for {name} ({condition})")
    except KeyboardInterrupt:
        operation.cancel()
        raise
    except PylxcError as error:
        if operation.metadata.get("timed_out"):
            error.exit_code = TIMED_OUT  # type: ignore[attr-defined]
        raise
    if operation.metadata.get("state") == "degraded" and not session.quiet:
        print(f"{name} has booted, but units have failed: pylxc exec {name} -- systemctl --failed")


def _wait(session: Session, args: Args) -> None:
    for condition in args.words[1:]:
        check(condition)
    name = session.required(args.words[0])
    for condition in args.words[1:]:
        wait(session, name, condition, args.timeout)


COMMANDS = (
    Command(
        "wait",
        "Wait until an instance is ready",
        f"[<remote>:]<instance> <{CONDITIONS}>...",
        _wait,
        words=(2, None),
        options=(Option("--timeout", help="Seconds to wait for each, -1 for ever", kind="int", default=SECONDS),),
        details=f"""
network      an address and a default route (IPv4, where the instance's network has it)
ip           an address of either kind; ipv4, ipv6: of this kind
port:N       something listens on the TCP port, port:N/udp on the UDP port
exec         commands can be run
boot         systemd says running or degraded; OpenRC and sysvinit are through
running      the instance runs
stopped      it does not

The exit status is {TIMED_OUT} when the time is up.""",
        examples=(
            ("wait c01 boot", "Until the guest has booted."),
            ("wait c01 network port:22 --timeout 20", "Until it is on the network and takes connections by SSH."),
        ),
        complete=("instance", COMPLETE),
    ),
)
