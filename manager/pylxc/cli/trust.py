"""`pylxc config trust`: the clients that a server trusts over the network, and the tokens that let further ones in."""

from __future__ import annotations

from pylxc.cli.edit import ask
from pylxc.cli.entity import Entity
from pylxc.cli.grammar import FORMAT, Args, Command, Option
from pylxc.errors import BadRequest, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

_PATH = "/1.0/certificates"
CERTIFICATE = Entity("certificate", _PATH, ("name", "type", "restricted", "projects", "certificate"), "fingerprint")
_TOKEN_KEYS = ("client_name", "fingerprint", "addresses", "secret", "expires_at")


def _add(session: Session, args: Args) -> None:
    words = list(args.words)
    session.name(words.pop(0) if words and words[0].endswith(":") else "")
    body: dict[str, Any] = {
        "type": args.type,
        "restricted": args.restricted,
        "projects": [name for name in (args.projects or "").split(",") if name],
    }
    if words:
        body |= {"name": args.name or words[0].rpartition("/")[2], "certificate": _read(words[0])}
        session.client.request("POST", _PATH, body)
        return
    name = args.name
    if not name:
        name = ask("Please provide client name: ")
    if not name:
        raise BadRequest("A name is needed for the client", hint="--name")
    operation = session.client.request("POST", _PATH, {**body, "name": name, "token": True}).metadata
    if not session.quiet:
        print(f"Client {name} certificate add token:")
    print(_token(operation))


def _read(path: str) -> str:
    """Return the first certificate in a PEM file as base64 of DER."""
    with open(path, encoding="ascii", errors="replace") as file:
        body = file.read().partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END CERTIFICATE-----")[0]
    if not body.strip():
        raise BadRequest(f"{path} holds no certificate in PEM")
    return "".join(body.split())


def _token(operation: dict[str, Any]) -> str:
    """Return the token that an operation is."""
    import base64
    import json

    fields = operation["metadata"]
    values = (fields["request"]["name"], *(fields[key] for key in ("fingerprint", "addresses", "secret", "expiresAt")))
    text = json.dumps(dict(zip(_TOKEN_KEYS, values, strict=True)), separators=(",", ":"))
    return base64.b64encode(text.encode()).decode()


def _tokens(session: Session) -> list[dict[str, Any]]:
    """Return the operations that are tokens of clients and have not been used."""
    return [
        one
        for one in session.client.operations.list()
        if one["class"] == "token" and one["status"] == "Running" and "request" in one["metadata"]
    ]


def _list(session: Session, args: Args) -> None:
    from pylxc.cli.output import show, sort_rows

    session.name(args.words[0] if args.words else "")
    found = session.client.get(_PATH, recursion=1)
    header = ("TYPE", "NAME", "COMMON NAME", "FINGERPRINT", "ISSUE DATE", "EXPIRY DATE")
    show(args.format, header, sort_rows([_row(one) for one in found]), found)


def _row(one: dict[str, Any]) -> list[str]:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    from pylxc.cli.output import long_time

    certificate = x509.load_pem_x509_certificate(one["certificate"].encode())
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    times = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    dates = [long_time(time.isoformat()) for time in times]
    return [one["type"], one["name"], str(names[0].value) if names else "", one["fingerprint"][:12], *dates]


def _list_tokens(session: Session, args: Args) -> None:
    from pylxc.cli.output import format_time, show, sort_rows

    session.name(args.words[0] if args.words else "")
    rows = []
    for one in _tokens(session):
        expires = one["metadata"]["expiresAt"]
        shown = "" if expires.startswith("0001-") else format_time(expires)
        rows.append([one["metadata"]["request"]["name"], _token(one), shown])
    data = [dict(zip(("ClientName", "Token", "ExpiresAt"), row, strict=True)) for row in rows]
    show(args.format, ("NAME", "TOKEN", "EXPIRES AT"), sort_rows(rows), data)


def _remove(session: Session, args: Args) -> None:
    name = session.required(args.words[0], "certificate")
    session.client.request("DELETE", CERTIFICATE.url(name))


def _revoke(session: Session, args: Args) -> None:
    session.name(args.words[0] if len(args.words) == 2 else "")
    name = args.words[-1]
    found = [one for one in _tokens(session) if one["metadata"]["request"]["name"] == name]
    if not found:
        raise NotFound(f"There is no token for {name!r}", hint="pylxc config trust list-tokens")
    session.client.operations.cancel(found[0]["id"])
    if not session.quiet:
        print(f"Certificate add token for {name} deleted")


_ONE = "[<remote>:]<fingerprint>"

COMMANDS = (
    Command(
        "trust",
        "Manage trusted clients",
        sub=(
            Command(
                "add",
                "Add new trusted client",
                "[<remote>:] [<cert>]",
                _add,
                words=(0, 2),
                options=(
                    Option("--name", help="Alternative certificate name", kind="value"),
                    Option("--projects", help="List of projects to restrict the certificate to", kind="value"),
                    Option("--restricted", help="Restrict the certificate to one or more projects"),
                    Option("--type", help="Type of certificate (client or metrics)", kind="value", default="client"),
                ),
                details="Without a certificate a token is made, with which one client can join by `remote add`.",
                complete=("file",),
                examples=(
                    ("config trust add --name laptop", "Let one client in, who is given the token that is printed."),
                    ("config trust add laptop.crt --restricted --projects web", "Let a client into a project."),
                ),
            ),
            Command(
                "edit",
                "Edit trust configurations as YAML",
                _ONE,
                CERTIFICATE.edit,
                words=(1, 1),
                complete=("fingerprint",),
                details="Reads the YAML from stdin when that is no terminal, and opens $EDITOR otherwise.",
            ),
            Command(
                "list", "List trusted clients", "[<remote>:]", _list, words=(0, 1), aliases=("ls",), options=(FORMAT,)
            ),
            Command(
                "list-tokens",
                "List all active certificate add tokens",
                "[<remote>:]",
                _list_tokens,
                words=(0, 1),
                options=(FORMAT,),
            ),
            Command(
                "remove",
                "Remove trusted client",
                _ONE,
                _remove,
                words=(1, 1),
                aliases=("rm",),
                complete=("fingerprint",),
            ),
            Command("revoke-token", "Revoke certificate add token", "[<remote>:] <name>", _revoke, words=(1, 2)),
            Command(
                "show", "Show trust configurations", _ONE, CERTIFICATE.show, words=(1, 1), complete=("fingerprint",)
            ),
        ),
    ),
)
