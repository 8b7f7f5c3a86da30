"""`pylxc remote add`: another server comes to be known here, and this user there."""

from __future__ import annotations

import sys

from pylxc.cli.edit import ask
from pylxc.cli.grammar import Args
from pylxc.cli.output import plain
from pylxc.cli.remotes import Remote
from pylxc.errors import BadRequest, Forbidden, NotSupported, PylxcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session
    from pylxc.client.client import Client
    from pylxc.client.probe import Probe

LXD_PORT = 8443


def add(session: Session, args: Args) -> None:
    """Add a remote; nothing is kept of one that cannot be used.

    Raises:
        BadRequest: a malformed word, or the user does not accept the server's certificate.
        Forbidden: the server does not trust the user.
        Conflict: there is such a remote.
    """
    name, addr = args.words[0], args.words[-1]
    if not addr:
        raise BadRequest("Remote address must not be empty")
    token = _decoded(args.token or addr)
    if token and not args.token and len(args.words) == 1:
        raise BadRequest("A name is needed for the remote", hint="pylxc remote add NAME TOKEN")
    if args.token and not token:
        raise BadRequest("This is no join token", hint="pylxc config trust add --name NAME prints one on the server")
    session.remotes.check_new(name)
    remote = Remote(name, {"addr": addr, "protocol": args.protocol, "public": True, "project": args.project or ""})
    certificate = ""
    if args.protocol == "simplestreams":
        check_simplestreams(addr)
        # The server that will fetch the images asks: what it has of proxies and certificates counts.
        session.client.images.elsewhere({"protocol": "simplestreams", "server": addr})
    elif args.protocol != "lxd":
        raise BadRequest(f"Invalid protocol: {args.protocol}")
    elif token:
        certificate = _find(remote, token, [] if _decoded(addr) else [addr])
        _join(session, remote, certificate, args.token or addr)
    else:
        remote.addr = lxd_url(addr)
        certificate = _accepted(remote.addr, accept=args.accept_certificate)
        if not args.public:
            _join(session, remote, certificate, args.password or "")
    session.remotes.add(remote, certificate)


def check_simplestreams(url: str) -> None:
    """Raise BadRequest unless this can be the URL of an image server."""
    if not url.startswith("https://"):
        raise BadRequest("Only https URLs are supported for simplestreams")


def lxd_url(addr: str) -> str:
    """Return the URL of the server that `HOST`, `HOST:PORT` or an URL names.

    Raises:
        BadRequest: it names none.
        NotSupported: it is a socket of this host.
    """
    scheme, has_scheme, rest = addr.partition("://")
    if not has_scheme:
        scheme, rest = ("unix", addr) if addr.startswith(("/", "unix:")) else ("https", addr)
    if scheme == "unix":
        raise NotSupported("Sockets of this host cannot be added", hint="$PYLXC_DIR names another local server")
    if scheme != "https":
        raise BadRequest(f'Invalid URL scheme "{scheme}" in "{addr}"')
    host = rest.partition("/")[0]
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    _, colon, port = host.rpartition(":") if not host.endswith("]") else ("", "", "")
    if colon and not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise BadRequest(f"Invalid port in {addr!r}")
    return f"https://{host}" if colon else f"https://{host}:{LXD_PORT}"


def _decoded(text: str) -> dict[str, Any] | None:
    """Return what is in a join token, None when `text` is none."""
    import base64
    import json

    try:
        found = json.loads(base64.b64decode(text, validate=True))
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("addresses"), list):
        return None
    return found if all(isinstance(found.get(key), str) for key in ("client_name", "fingerprint", "secret")) else None


def _find(remote: Remote, token: dict[str, Any], addresses: list[str]) -> str:
    """Find the server that a token is of, at one of its addresses (or those given), and return its certificate."""
    failed: PylxcError | None = None
    for address in addresses or [str(each) for each in token["addresses"]]:
        url = lxd_url(address)
        try:
            found = _probe(url)
        except PylxcError as error:
            failed = error
            continue
        if found.fingerprint == token["fingerprint"]:
            remote.addr = url
            return found.certificate
        failed = Forbidden(f"The certificate of {url} is not that of the server that has issued the token")
    raise failed or BadRequest("The token has no addresses")


def _accepted(url: str, *, accept: bool) -> str:
    """Return the certificate to pin for a server, empty for one that the host trusts; the user is asked."""
    found = _probe(url)
    if found.trusted:
        return ""
    if not accept:
        print(f"Certificate fingerprint: {found.fingerprint}")
        answer = ask("ok (y/n/[fingerprint])? ").lower()
        if answer != found.fingerprint and answer[:1] in {"", "n"}:
            raise BadRequest("Server certificate NACKed by user")
        if answer != found.fingerprint and answer[0] != "y":
            raise BadRequest("Please type 'y', 'n' or the fingerprint")
    return found.certificate


def _probe(url: str) -> Probe:
    from pylxc.client.probe import probe

    return probe(url)


def _join(session: Session, remote: Remote, certificate: str, secret: str) -> None:
    """Have the server trust this user, and find the project to work in."""
    remote.public, remote.auth_type = False, "tls"
    with session.connect(remote, certificate) as client:
        if client.server["auth"] != "trusted":
            secret = secret or _ask_secret(f"Admin password (or token) for {remote.name}: ")
            client.request("POST", "/1.0/certificates", {"type": "client", "password": secret})
            if client.server["auth"] != "trusted":
                raise Forbidden("The server does not trust this client after it has been told of it")
            if not session.quiet:
                print(f"Client certificate now trusted by server: {remote.name}")
        remote.project = remote.project or _project(client)


def _project(client: Client) -> str:
    """Return the project to work in, "" for the default one: who is restricted may not be let in there."""
    names = client.projects.names()
    if "default" in names or not names:
        return ""
    if len(names) == 1:
        return names[0]
    print(plain(f"Available projects: {', '.join(names)}"))
    answer = ask("Name of the project to use for this remote: ")
    if answer not in names:
        raise BadRequest(f"There is no project {answer!r} for this client", hint="--project names one")
    return answer


def _ask_secret(question: str) -> str:
    """Ask for what is not to be seen on a terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        return ask(question)
    import getpass

    return getpass.getpass(question).strip()
