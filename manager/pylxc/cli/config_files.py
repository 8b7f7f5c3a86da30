"""`pylxc config metadata` and `pylxc config template`: what came with an instance's image beside its files."""

from __future__ import annotations

import sys

from pylxc.cli.edit import edit, run_editor
from pylxc.cli.grammar import FORMAT, Args, Command
from pylxc.client.instances import Instances

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

_NAME = "[<remote>:]<instance>"
_COMPLETE = ("instance", "")


def _show_metadata(session: Session, args: Args) -> None:
    from pylxc.cli import yamltext

    found = session.client.get(Instances.url(session.required(args.words[0]), "metadata"))
    sys.stdout.write(yamltext.dump(found))


def _edit_metadata(session: Session, args: Args) -> None:
    url = Instances.url(session.required(args.words[0]), "metadata")
    reply = session.client.request("GET", url)

    def apply(fields: dict[str, Any]) -> None:
        session.client.request("PUT", url, fields, if_match=reply.etag)

    edit("metadata of an instance's image", reply.metadata, apply)


def _templates(session: Session, args: Args) -> str:
    return Instances.url(session.required(args.words[0]), "metadata", "templates")


def _list(session: Session, args: Args) -> None:
    from pylxc.cli.output import show

    names = session.client.get(_templates(session, args))
    show(args.format, ["FILENAME"], [[name] for name in names], names)


def _show(session: Session, args: Args) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(_read(session, args))


def _read(session: Session, args: Args) -> bytes:
    return session.client.stream("GET", _templates(session, args), query={"path": args.words[1]}).read()


def _write(session: Session, args: Args, content: bytes) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    query = {"path": args.words[1]}
    session.client.stream("POST", _templates(session, args), query=query, headers=headers, body=content).drain()


def _create(session: Session, args: Args) -> None:
    _write(session, args, b"")


def _edit(session: Session, args: Args) -> None:
    if sys.stdin is not None and not sys.stdin.isatty():
        _write(session, args, sys.stdin.buffer.read())
        return
    before = _read(session, args)
    after = run_editor(before, ".tpl")
    if after != before:
        _write(session, args, after)


def _delete(session: Session, args: Args) -> None:
    session.client.request("DELETE", _templates(session, args), query={"path": args.words[1]})


_METADATA = Command(
    "metadata",
    "Manage instance metadata files",
    sub=(
        Command(
            "edit",
            "Edit the metadata of an instance's image as YAML",
            _NAME,
            _edit_metadata,
            words=(1, 1),
            details="Reads the YAML from stdin when that is no terminal, and opens $EDITOR otherwise.",
            complete=_COMPLETE,
        ),
        Command(
            "show",
            "Show the metadata of an instance's image",
            _NAME,
            _show_metadata,
            words=(1, 1),
            complete=_COMPLETE,
        ),
    ),
)

_ONE = f"{_NAME} <template>"

_TEMPLATE = Command(
    "template",
    "Manage instance file templates",
    sub=(
        Command("create", "Create an empty file template", _ONE, _create, words=(2, 2), complete=_COMPLETE),
        Command("delete", "Delete a file template", _ONE, _delete, words=(2, 2), aliases=("rm",), complete=_COMPLETE),
        Command(
            "edit",
            "Edit a file template",
            _ONE,
            _edit,
            words=(2, 2),
            details="Reads the template from stdin when that is no terminal, and opens $EDITOR otherwise.",
            complete=_COMPLETE,
        ),
        Command(
            "list",
            "List file templates",
            _NAME,
            _list,
            words=(1, 1),
            options=(FORMAT,),
            aliases=("ls",),
            complete=_COMPLETE,
        ),
        Command("show", "Show a file template", _ONE, _show, words=(2, 2), complete=_COMPLETE),
    ),
)

COMMANDS = (_METADATA, _TEMPLATE)
