"""The commands that every named thing with a configuration has: list, show, get, set, unset, edit, delete, rename.

A thing is read, changed and written back with If-Match, so that two who change it at once do not undo each other.
"""

from __future__ import annotations

import sys

from pylxc.cli.edit import assignments, edit
from pylxc.cli.grammar import FORMAT, Args, Command
from pylxc.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pylxc.cli.session import Session
    from pylxc.client.client import Reply

    Row = Callable[[dict[str, Any]], list[str]]


class Entity:
    """A kind of thing.

    Args:
        what: what one of it is called: "profile", "storage pool".
        path: where the kind is on the server.
        fields: what may be changed by PUT.
        word: how the usage calls one, `what` when empty.
        keys: whose configuration keys it has, for completion: "instance", "project", "network-bridge", ...
    """

    def __init__(self, what: str, path: str, fields: tuple[str, ...], word: str = "", keys: str = "") -> None:
        self.what = what
        self.path = path
        self.fields = fields
        self.word = word or what
        self._keys = f"{keys} key" if keys else ""

    def url(self, name: str) -> str:
        """Return where the thing `name` is on the server."""
        return f"{self.path}/{quote(name)}"

    def change(self, session: Session, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Read the thing, let `change` work on what may be changed, write that back."""
        reply = session.client.request("GET", self.url(name))
        fields = self.changeable(reply)
        change(fields)
        session.wait(session.client.start("PUT", self.url(name), fields, if_match=reply.etag))

    def changeable(self, reply: Reply) -> dict[str, Any]:
        """Return what may be changed of the thing in `reply`."""
        return {key: reply.metadata[key] for key in self.fields if key in reply.metadata}

    # -- what the commands do -------------------------------------------------------------------------------------

    def show(self, session: Session, args: Args) -> None:
        """Print the thing as YAML."""
        from pylxc.cli import yamltext

        reply = session.client.request("GET", self.url(session.required(args.words[0], self.what)))
        found = reply.metadata
        if "used_by" in found:
            found["used_by"] = sorted(found["used_by"])
        sys.stdout.write(yamltext.dump(found))

    def get(self, session: Session, args: Args) -> None:
        """Print a value of its configuration."""
        reply = session.client.request("GET", self.url(session.required(args.words[0], self.what)))
        print(reply.metadata["config"].get(args.words[1], ""))

    def set(self, session: Session, args: Args) -> None:
        """Set values of its configuration."""
        values = assignments(args.words[1:], legacy=True)
        self.change(session, session.required(args.words[0], self.what), lambda f: f["config"].update(values))

    def unset(self, session: Session, args: Args) -> None:
        """Remove a key from its configuration; the server says whether there can be such a key."""
        values = {args.words[1]: ""}
        self.change(session, session.required(args.words[0], self.what), lambda f: f["config"].update(values))

    def edit(self, session: Session, args: Args) -> None:
        """Change it as YAML."""
        name = session.required(args.words[0], self.what)
        reply = session.client.request("GET", self.url(name))

        def apply(fields: dict[str, Any]) -> None:
            session.wait(session.client.start("PUT", self.url(name), fields, if_match=reply.etag))

        edit(self.what, self.changeable(reply), apply)

    def delete(self, session: Session, args: Args) -> None:
        """Delete it."""
        for word in args.words:
            name = session.required(word, self.what)
            session.wait(session.client.start("DELETE", self.url(name)))
            if not session.quiet:
                print(f"{self.what.capitalize()} {name} deleted")

    def rename(self, session: Session, args: Args) -> None:
        """Rename it."""
        name, new = session.required(args.words[0], self.what), session.new_name(args.words[1], self.what)
        session.wait(session.client.start("POST", self.url(name), {"name": new}))
        if not session.quiet:
            print(f"{self.what.capitalize()} {name} renamed to {new}")

    def commands(self, *, but: tuple[str, ...] = ()) -> tuple[Command, ...]:
        """Return the commands without those that are named in `but`."""
        one = f"[<remote>:]<{self.word}>"
        complete = (self.word,)
        found = (
            Command(
                "delete", f"Delete {self.what}s", one, self.delete, words=(1, None), aliases=("rm",), complete=complete
            ),
            Command(
                "edit",
                f"Edit {self.what} configurations as YAML",
                one,
                self.edit,
                words=(1, 1),
                complete=complete,
                details="Reads the YAML from stdin when that is no terminal, and opens $EDITOR otherwise.",
            ),
            Command(
                "get",
                f"Get values for {self.what} configuration keys",
                f"{one} <key>",
                self.get,
                words=(2, 2),
                complete=(*complete, self._keys),
            ),
            Command(
                "set",
                f"Set {self.what} configuration keys",
                f"{one} <key>=<value>...",
                self.set,
                words=(2, None),
                complete=(*complete, self._keys and f"{self._keys}="),
            ),
            Command(
                "rename",
                f"Rename {self.what}s",
                f"{one} <new-name>",
                self.rename,
                words=(2, 2),
                aliases=("mv",),
                complete=(*complete, ""),
            ),
            Command("show", f"Show {self.what} configurations", one, self.show, words=(1, 1), complete=complete),
            Command(
                "unset",
                f"Unset {self.what} configuration keys",
                f"{one} <key>",
                self.unset,
                words=(2, 2),
                complete=(*complete, self._keys),
            ),
        )
        return tuple(command for command in found if command.name not in but)

    def list_command(
        self,
        summary: str,
        header: tuple[str, ...],
        row: Row,
        keep: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> Command:
        """Return the list command; `row` gives a text per title of `header`, `keep` says which have a row."""

        def run(session: Session, args: Args) -> None:
            from pylxc.cli.output import show, sort_rows

            session.name(args.words[0] if args.words else "")
            found = session.client.get(self.path, recursion=1)
            show(args.format, header, sort_rows([row(one) for one in found if keep(one)]), found)

        return Command("list", summary, "[<remote>:]", run, words=(0, 1), aliases=("ls",), options=(FORMAT,))


def group(name: str, summary: str, commands: tuple[Command, ...]) -> Command:
    """Return the group `name` of `commands`, sorted by name."""
    return Command(name, summary, sub=tuple(sorted(commands, key=lambda command: command.name)))
