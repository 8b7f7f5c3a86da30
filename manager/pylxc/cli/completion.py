"""`pylxc completion`: a few lines for the shell, which ask `pylxc _complete` what may come next.

The answers come from the grammar, and for names of instances, images and so on from the server.
"""

from __future__ import annotations

import sys

from pylxc.cli.completion_names import FILES, names
from pylxc.cli.grammar import GLOBAL, Args, Command, Option
from pylxc.cli.main import ROOT, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pylxc.cli.completion_names import Candidate
    from pylxc.cli.session import Session

OPEN = ("/", ":", "=")
"""What ends with one of these is a beginning, which the user writes on."""
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
    if [[ ${#out[@]} == 1 && ${out[0]} == *[/:=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _pylxc pylxc
"""

_ZSH = r"""#compdef pylxc
_pylxc() {
    local -a out open
    out=("${(@f)$(pylxc _complete zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ $out[1] == :files ]]; then
        _files
        return
    fi
    local -i at=${out[(i):open]}
    open=(${out[at+1,-1]})
    out=(${out[1,at-1]})
    (( $#out )) && _describe 'pylxc' out
    (( $#open )) && _describe 'pylxc' open -S ''
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
    *before, prefix = words or [""]
    command, given, pending = ROOT, list[str](), None
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
            child = _child(command, word)
            if child is None:
                return []
            command = child
        else:
            given.append(word)
    return [one for one in _next(command, given, pending, prefix) if one[0].startswith(prefix) or one[0] == FILES]


def _option(command: Command, word: str) -> Option | None:
    name = word.partition("=")[0]
    return next((one for one in (*command.options, *GLOBAL) if name in one.names), None)


def _child(command: Command, word: str) -> Command | None:
    return find(word) if command is ROOT else command.child(word)


def _next(command: Command, given: list[str], pending: Option | None, prefix: str) -> Iterator[Candidate]:
    flag, has_value, value = prefix.partition("=") if prefix.startswith("--") else (prefix, "", "")
    if pending is not None:
        yield from _values(pending, prefix, given)
    elif has_value and (option := _option(command, flag)):
        yield from ((f"{flag}={word}", what) for word, what in _values(option, value, given) if word != FILES)
    elif prefix.startswith("-"):
        for option in (*command.options, *GLOBAL):
            yield from ((name, option.help) for name in option.names)
    elif command.sub:
        yield from _commands(command)
    elif command.complete == ("command",):
        named: Command | None = ROOT
        for word in given:
            named = _child(named, word) if named else None
        yield from _commands(named or command)
    elif command.complete:
        yield from names(command.complete[min(len(given), len(command.complete) - 1)], prefix, given)


def _values(option: Option, prefix: str, given: list[str]) -> Iterator[Candidate]:
    yield from ((choice, "") for choice in option.choices)
    if option.complete:
        yield from names(option.complete, prefix, given)


def _commands(command: Command) -> Iterator[Candidate]:
    yield from ((child.name, child.summary) for child in command.sub)


def _complete(_session: Session, args: Args) -> None:
    shell, *words = args.words
    if shell == "bash":
        words = _split((words or [""])[0])
    # Files' names are the guest's: one that holds a line break, or a command, must not become the user's.
    found = [(word, " ".join(what.split())) for word, what in candidates(words) if word.isprintable()]
    prefix = words[-1] if words else ""
    if shell == "zsh" and found != [(FILES, "")]:
        # What is written on, behind a slash for instance, comes last: no space follows it.
        for is_open in (False, True):
            lines = [_for_zsh(*one) for one in found if one[0].endswith(OPEN) == is_open]
            print("\n".join([*([":open"] if is_open else []), *lines]))
        return
    # bash takes these for the end of a word and completes what follows.
    done = max(prefix.rfind(":"), prefix.rfind("=")) + 1 if shell == "bash" else 0
    for word, what in found:
        if shell == "bash" and word != FILES:
            print(_escaped(word[done:]))
        else:
            print(f"{word}\t{what}" if shell == "fish" and what else word)


def _for_zsh(word: str, what: str) -> str:
    escaped = word.replace(":", "\\:")
    return f"{escaped}:{what}" if what else escaped


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
        complete=("|".join(f"={shell}" for shell in SCRIPTS),),
    ),
    Command("_complete", "Answer a completion script", "<shell> [--] <word>...", _complete, words=(1, None)),
)
