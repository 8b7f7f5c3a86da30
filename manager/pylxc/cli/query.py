"""`pylxc query`: the API as it is."""

from __future__ import annotations

import sys

from pylxc.cli.edit import read_stdin
from pylxc.cli.grammar import Args, Command, Option
from pylxc.client import codec
from pylxc.client.operations import Operation
from pylxc.errors import BadRequest, for_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session


def _run(session: Session, args: Args) -> None:
    path = session.name(args.words[0])
    if not path.startswith("/"):
        raise BadRequest("The API path must begin with /", hint="pylxc query /1.0/instances")
    data = read_stdin() if args.data == "-" else args.data
    client = session.client
    headers = {"Content-Type": "application/json"} if data is not None else {}
    target = client.target(path)
    response = client.connection.request(args.request, target, headers, None if data is None else data.encode())
    if not response.headers.get("content-type", "").startswith("application/json"):
        if response.status >= 400:
            raise for_status(response.status, response.read().decode(errors="replace").strip())
        sys.stdout.flush()
        response.into(1)
        return
    text = response.read().decode()
    if args.raw:
        sys.stdout.write(text)
        return
    envelope = codec.loads(text)
    if envelope["type"] == "error":
        raise for_status(response.status, envelope["error"])
    result = envelope["metadata"]
    if args.wait and envelope["type"] == "async":
        result = session.wait(Operation(client, result), "").data
    if isinstance(result, str):
        print(result)
    elif result not in (None, {}):
        import json

        print(json.dumps(result, indent="\t", ensure_ascii=False, sort_keys=True))


COMMANDS = (
    Command(
        "query",
        "Send a raw query to the server",
        "[<remote>:]<API path>",
        _run,
        words=(1, 1),
        options=(
            Option("-d", "--data", help="Input data (- reads stdin)", kind="value"),
            Option("--raw", help="Print the raw response"),
            Option("-X", "--request", help="Action", kind="value", default="GET"),
            Option("--wait", help="Wait for the operation to complete"),
        ),
        examples=(("query -X DELETE --wait /1.0/instances/c01", 'Delete the instance "c01".'),),
    ),
)
