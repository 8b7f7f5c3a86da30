"""`pylxc remote`."""

from __future__ import annotations

from pylxc.cli.grammar import FORMAT, Args, Command, Option
from pylxc.cli.output import show, sort_rows, yes
from pylxc.cli.remotes import Remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session

# How `lxc` calls the fields in JSON.
_JSON = ("Addr", "AuthType", "Domain", "Project", "Protocol", "Public", "Global", "Static")


def _auth(remote: Remote) -> str:
    if remote.auth_type:
        return remote.auth_type
    if remote.protocol != "lxd":
        return "none"
    return "file access" if remote.static else "none" if remote.public else "tls"


def _list(session: Session, args: Args) -> None:
    remotes = session.remotes
    rows = []
    for remote in remotes.all():
        shown = f"{remote.name} (current)" if remote.name == remotes.default else remote.name
        flags = [yes(flag) for flag in (remote.public, remote.static, remote.site)]
        rows.append([shown, remote.addr, remote.protocol, _auth(remote), *flags])
    if args.format == "json":
        data: dict[str, object] = {remote.name: _as_json(remote) for remote in remotes.all()}
    else:
        data = {remote.name: remote.fields() for remote in remotes.all()}
    header = ("NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC", "GLOBAL")
    show(args.format, header, sort_rows(rows), data)


def _as_json(remote: Remote) -> dict[str, object]:
    values = (remote.addr, remote.auth_type, remote.domain, remote.project, remote.protocol, remote.public)
    return dict(zip(_JSON, (*values, remote.site, remote.static), strict=True))


def _add(session: Session, args: Args) -> None:
    from pylxc.cli.remote_add import add

    add(session, args)


def _default(session: Session, _args: Args) -> None:
    print(session.remotes.default)


def _remove(session: Session, args: Args) -> None:
    session.remotes.remove(args.words[0])


def _rename(session: Session, args: Args) -> None:
    session.remotes.rename(args.words[0], args.words[1])


def _set_url(session: Session, args: Args) -> None:
    name, url = args.words
    from pylxc.cli.remote_add import check_simplestreams, lxd_url

    remote = session.remotes.changeable(name)
    if remote.protocol == "simplestreams":
        check_simplestreams(url)
    else:
        url = lxd_url(url)
    session.remotes.set_url(name, url)


def _switch(session: Session, args: Args) -> None:
    session.remotes.switch(args.words[0])


_ONE = ("remote", "")

COMMANDS = (
    Command(
        "remote",
        "Manage the list of remote servers",
        sub=(
            Command(
                "add",
                "Add new remote servers",
                "[<remote>] <IP|FQDN|URL|token>",
                _add,
                words=(1, 2),
                options=(
                    Option("--accept-certificate", help="Accept certificate"),
                    Option("--password", help="Remote admin password", kind="value"),
                    Option("--protocol", help="Server protocol (lxd or simplestreams)", kind="value", default="lxd"),
                    Option("--public", help="Public image server"),
                    Option("--token", help="Join token of the remote server", kind="value"),
                ),
                details="""
The server must answer. One of protocol "lxd" whose certificate no authority of this host has signed is known by that
certificate from then on; its fingerprint is shown first.

Basic authentication goes with the protocol "simplestreams": https://LOGIN:PASSWORD@example.com/some/path
""",
                examples=(
                    (
                        "remote add mirror https://mirror.example.com/releases --protocol=simplestreams",
                        "Add an image server; pylxc launch mirror:22.04 then uses it.",
                    ),
                    ("remote add srv TOKEN", "Add a server that has issued this join token: config trust add."),
                    ("remote add site images.example.com --public", "Add an LXD server with public images."),
                ),
            ),
            Command("get-default", "Show the default remote", "", _default),
            Command("list", "List the available remotes", "", _list, aliases=("ls",), options=(FORMAT,)),
            Command(
                "remove", "Remove remotes", "<remote>", _remove, words=(1, 1), aliases=("rm",), complete=("remote",)
            ),
            Command(
                "rename",
                "Rename remotes",
                "<remote> <new-name>",
                _rename,
                words=(2, 2),
                aliases=("mv",),
                complete=_ONE,
            ),
            Command("set-url", "Set the URL for the remote", "<remote> <URL>", _set_url, words=(2, 2), complete=_ONE),
            Command(
                "switch",
                "Switch the default remote",
                "<remote>",
                _switch,
                words=(1, 1),
                aliases=("set-default",),
                complete=("remote",),
            ),
        ),
    ),
)
