"""`pylxc completion`: a few lines for the shell, which ask `pylxc _complete` what may come next.

The answers come from the grammar, and for names of instances, images and so on from the server.
"""

from __future__ import annotations

import sys

from pylxc.cli.grammar import GLOBAL, Args, Command, Option
from pylxc.cli.remotes import Remotes
from pylxc.client.client import Client
from pylxc.errors import PylxcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pylxc.cli.session import Session

    Candidate = tuple[str, str]

FILES = ":files"
_PLAIN = frozenset("_-./:@%+=,")
"""What stands for itself in bash, beside letters and digits."""

_BASH = r"""_pylxc() {
    local line out
    mapfile -t out < <(pylxc _complete bash -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    COMPREPLY=()
    if [[ ${out[0]} == :files ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
        return
    fi
    COMPREPLY=("${out[@]}")
    if [[ ${#out[@]} == 1 && ${out[0]} == *[/:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _pylxc pylxc
"""

_ZSH = r"""#compdef pylxc
_pylxc() {
    local -a out
    out=("${(@f)$(pylxc _complete zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ $out[1] == :files ]]; then
        _files
    elif [[ -n $out[1] ]]; then
        _describe 'pylxc' out
    fi
}
if [[ $funcstack[1] == _pylxc ]]; then
    _pylxc "$@"
else
    compdef _pylxc pylxc
fi
"""

_FISH = r"""function __pylxc_complete
    set -l words (commandline -opc)[2..-1] (commandline -ct)
    set -l out (pylxc _complete fish -- $words 2>/dev/null)
    if test "$out[1]" = :files
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $out
    end
end
complete -c pylxc -f -a '(__pylxc_complete)'
"""

SCRIPTS = {"bash": _BASH, "fish": _FISH, "zsh": _ZSH}


def candidates(words: Sequence[str]) -> list[Candidate]:
    """Return what the last of `words` may become, as (word, description); (FILES, "") for names of files."""
    from pylxc.cli.main import ROOT, find

    *before, prefix = words or [""]
    command, place, pending = ROOT, 0, None
    for word in before:
        if word == "--":
            return []
        if pending is not None:
            pending = None
        elif word.startswith("-"):
            option = _option(command, word)
            pending = (
                option if option and option.kind != "flag" and option.implied is None and "=" not in word else None
            )
        elif command is ROOT or command.sub:
            child = find(word) if command is ROOT else command.child(word)
            if child is None:
                return []
            command = child
        else:
            place += 1
    return [one for one in _next(command, place, pending, prefix) if one[0].startswith(prefix) or one[0] == FILES]


def _option(command: Command, word: str) -> Option | None:
    name = word.partition("=")[0]
    return next((one for one in (*command.options, *GLOBAL) if name in one.names), None)


def _next(command: Command, place: int, pending: Option | None, prefix: str) -> Iterator[Candidate]:
    if pending is not None:
        yield from ((choice, "") for choice in pending.choices)
        yield from _names(pending.complete, prefix)
    elif prefix.startswith("-"):
        for option in (*command.options, *GLOBAL):
            yield from ((name, option.help) for name in option.names)
    elif command.sub:
        yield from ((child.name, child.summary) for child in command.sub)
    elif command.complete:
        yield from _names(command.complete[min(place, len(command.complete) - 1)], prefix)


def _names(kind: str, prefix: str) -> Iterator[Candidate]:
    """Yield the names of a kind that the server knows; none when it does not answer."""
    if kind == "file":
        yield FILES, ""
        return
    try:
        yield from _ask(Client(), kind, prefix)  # never starts a daemon
    except (PylxcError, OSError, KeyError):
        return


def _ask(client: Client, kind: str, prefix: str) -> Iterator[Candidate]:
    if kind == "instance/" and "/" in prefix:
        name, _, path = prefix.partition("/")
        above = path.rpartition("/")[0]
        _, response = client.instances.files(name).open(f"/{above}")
        base = f"{name}/{above}/" if above else f"{name}/"
        yield from ((base + entry, "") for entry in client.instances.files(name).entries(response))
    elif kind in {"instance", "instance/"}:
        end = "/" if kind == "instance/" else ""
        yield from ((one["name"] + end, f"{one['status']}") for one in client.instances.list())
    elif kind in {"remote", "remote:"}:
        end = kind.removeprefix("remote")
        yield from ((remote.name + end, remote.addr) for remote in Remotes.load().all())
    elif kind == "image":
        yield from _images(client, prefix)
    elif kind == "operation":
        yield from ((one["id"], one["description"]) for one in client.operations.list())
    elif kind == "shell":
        yield from ((name, "") for name in SCRIPTS)
    else:
        paths = {"profile": "profiles", "network": "networks", "pool": "storage-pools", "project": "projects"}
        for one in client.get(f"/1.0/{paths[kind]}", recursion=1) if kind in paths else []:
            yield one["name"], one.get("description", "")


def _images(client: Client, prefix: str) -> Iterator[Candidate]:
    """Yield images that are here or can be built here; what servers have would have to be asked for, which is slow."""
    if ":" not in prefix:
        yield from ((f"{remote.name}:", remote.addr) for remote in Remotes.load().all() if not remote.is_server)
    for start, images in (("", client.images.list()), ("recipe:", client.images.elsewhere({"protocol": "recipe"}))):
        for image in images:
            what = image["properties"].get("description", "")
            yield from ((f"{start}{alias['name']}", what) for alias in image["aliases"])


def _complete(_session: Session, args: Args) -> None:
    shell, *words = args.words
    if shell == "bash":
        words = _split((words or [""])[0])
    # Files' names are the guest's: one that holds a line break, or a command, must not become the user's.
    found = [(word, " ".join(what.split())) for word, what in candidates(words) if word.isprintable()]
    prefix = words[-1] if words else ""
    for word, what in found:
        if shell == "zsh" and word != FILES:
            print(f"{word.replace(':', chr(92) + ':')}:{what}" if what else word.replace(":", "\\:"))
        elif shell == "fish" and what:
            print(f"{word}\t{what}")
        elif shell == "bash" and word != FILES:
            # bash takes the colon for the end of a word and completes what follows it.
            print(_escaped(word[prefix.rindex(":") + 1 :] if ":" in prefix else word))
        else:
            print(word)


def _escaped(word: str) -> str:
    """Return a word as bash has to read it, which takes an answer for what was typed."""
    return "".join(char if char.isalnum() or char in _PLAIN else f"\\{char}" for char in word)


def _split(line: str) -> list[str]:
    """Return the words of an unfinished command line without the program; the last one is being written."""
    import shlex

    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    return [*words[1:], ""] if line[-1:].isspace() else words[1:] or [""]


def _script(_session: Session, args: Args) -> None:
    from pylxc.errors import BadRequest

    shell = args.words[0]
    if shell not in SCRIPTS:
        raise BadRequest(f"No completion for {shell!r}", hint="bash, fish and zsh are known")
    sys.stdout.write(SCRIPTS[shell])


COMMANDS = (
    Command(
        "completion",
        "Print a completion script for a shell",
        "bash|fish|zsh",
        _script,
        words=(1, 1),
        details="""
bash: pylxc completion bash > /etc/bash_completion.d/pylxc
zsh:  pylxc completion zsh > "${fpath[1]}/_pylxc"
fish: pylxc completion fish > ~/.config/fish/completions/pylxc.fish
""",
        complete=("shell",),
    ),
    Command("_complete", "Answer a completion script", "<shell> [--] <word>...", _complete, words=(1, None)),
)
