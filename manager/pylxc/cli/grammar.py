"""The grammar of the command line, as data: commands, options, and the one parser that reads both.

Not argparse: the import alone (with `re`, `gettext`, `enum`) takes 10 ms where the interpreter starts in 12, which a
command that is done in 5 cannot afford. And the dialect is `lxc`'s: options between the words, `--console[=type]`,
`--` before a command that is passed on. Help and completion are made from the same data.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from pylxc.cli.session import Session

    Run = Callable[[Session, "Args"], int | None]

FORMATS = ("csv", "json", "table", "yaml", "compact")


class UsageError(Exception):
    """The command line does not fit the grammar.

    Attributes:
        command: the command it was about, for its usage line; None for the one that runs.
    """

    def __init__(self, message: str, command: Command | None = None) -> None:
        super().__init__(message)
        self.command = command


class Option:
    """An option.

    Args:
        *names: spellings, short one first: "-f", "--format".
        help: one line.
        kind: "flag"; "value" (a text); "int"; "list" (may be repeated, every text kept).
        default: the value when it is not given; None, False and [] by kind otherwise.
        implied: for "value": what `--name` alone means, the value then needs a `=`.
        choices: the values that are allowed.
        complete: what the value is, for completion: "instance", "profile", "file", ...; see `completion_names.names`.
    """

    __slots__ = ("choices", "complete", "default", "dest", "help", "implied", "kind", "names")

    def __init__(
        self,
        *names: str,
        help: str,  # noqa: A002  (what it is called everywhere)
        kind: str = "flag",
        default: Any = None,
        implied: str | None = None,
        choices: tuple[str, ...] = (),
        complete: str = "",
    ) -> None:
        self.names = names
        self.help = help
        self.kind = kind
        self.default = default if default is not None else False if kind == "flag" else None
        self.implied = implied
        self.choices = choices
        self.complete = complete
        self.dest = names[-1].lstrip("-").replace("-", "_")


FORMAT = Option("-f", "--format", help=f"Format ({'|'.join(FORMATS)})", kind="value", default="table", choices=FORMATS)

GLOBAL = (
    Option("--debug", help="Show all debug messages"),
    Option("--force-local", help="Force using the local unix socket"),
    Option("-h", "--help", help="Print help"),
    Option("--project", help="Override the source project", kind="value", complete="project"),
    Option("-q", "--quiet", help="Don't show progress information"),
    Option("-v", "--verbose", help="Show all information messages"),
    Option("--version", help="Print version number"),
)


class Command:
    """A command, or a group of them.

    Args:
        name: its name.
        summary: one line.
        usage: the words it takes, as the usage line shows them.
        run: what it does; returns the exit status, None for 0. None for a group.
        words: how many words it takes, at least and at most (None: any number).
        options: its options beside the global ones.
        sub: the commands of a group.
        aliases: further names.
        details: further text of the help.
        examples: pairs of a command line and what it does.
        complete: what its words are, for completion, one kind per word; the last one stands for all that follow.
        module: which of this package's modules has the rest of it in its COMMANDS, read when it is called.
    """

    __slots__ = (
        "aliases",
        "complete",
        "details",
        "examples",
        "module",
        "name",
        "options",
        "path",
        "run",
        "sub",
        "summary",
        "usage",
        "words",
    )

    def __init__(  # noqa: PLR0913  (a record; all but the first four are named)
        self,
        name: str,
        summary: str,
        usage: str = "",
        run: Run | None = None,
        *,
        words: tuple[int, int | None] = (0, 0),
        options: tuple[Option, ...] = (),
        sub: tuple[Command, ...] = (),
        aliases: tuple[str, ...] = (),
        details: str = "",
        examples: tuple[tuple[str, str], ...] = (),
        complete: tuple[str, ...] = (),
        module: str = "",
    ) -> None:
        self.name = name
        self.summary = summary
        self.usage = usage
        self.run = run
        self.words = words
        self.options = options
        self.sub = sub
        self.aliases = aliases
        self.details = details
        self.examples = examples
        self.complete = complete
        self.module = module
        self.path = ""

    def child(self, name: str) -> Command | None:
        """Return the command of this group that is called `name`."""
        for command in self.sub:
            if name == command.name or name in command.aliases:
                return command.loaded()
        return None

    def loaded(self) -> Command:
        """Return the command with all that belongs to it."""
        if not self.module:
            return self
        commands: tuple[Command, ...] = __import__(f"pylxc.cli.{self.module}", fromlist=["COMMANDS"]).COMMANDS
        return next(command for command in commands if command.name == self.name)

    def usage_line(self) -> str:
        """Return the usage line without the word "Usage"."""
        rest = "[command]" if self.sub else self.usage
        flags = "" if "[flags]" in rest else "[flags]"
        return " ".join(part for part in ("pylxc", self.path, rest, flags) if part)


class Args:
    """What was read: an attribute for every option of the command, and `words`."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.given: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def _options(command: Command | None) -> Iterator[Option]:
    if command is not None:
        yield from command.options
    yield from GLOBAL


class Parser:
    """Reads a command line.

    Args:
        find: returns the command of the top level that has a name, None when there is none.
    """

    def __init__(self, find: Callable[[str], Command | None], root: Command) -> None:
        self._find = find
        self._root = root
        self.command = root
        self.args = Args()

    def parse(self, argv: Sequence[str]) -> Args:
        """Read `argv` (without the program's name); `command` is then the command that it names.

        Raises:
            UsageError: it does not fit.
        """
        rest = list(reversed(argv))
        while rest:
            word = rest.pop()
            if word == "--":
                self.args.words += reversed(rest)
                break
            if word.startswith("--"):
                self._long(word, rest)
            elif word.startswith("-") and word != "-":
                self._short(word, rest)
            elif not self.args.words and (self.command is self._root or self.command.sub):
                self._descend(word)
            else:
                self.args.words.append(word)
        for option in _options(self.command):
            if option.dest not in self.args.given:
                setattr(self.args, option.dest, [] if option.kind == "list" else option.default)
        return self.args

    def check_words(self) -> None:
        """Check the number of words.

        Raises:
            UsageError: there are too few or too many.
        """
        least, most = self.command.words
        count = len(self.args.words)
        if count < least:
            raise UsageError("Too few arguments", self.command)
        if most is not None and count > most:
            raise UsageError(f"Unexpected argument {self.args.words[most]!r}", self.command)

    def _descend(self, word: str) -> None:
        is_root = self.command is self._root
        command = self._find(word) if is_root else self.command.child(word)
        if command is None:
            raise UsageError(f"Unknown command {word!r}" + _did_you_mean(word, self.command), self.command)
        command.path = command.name if is_root else f"{self.command.path} {command.name}"
        self.command = command

    def _lookup(self, name: str) -> Option:
        for option in _options(self.command):
            if name in option.names:
                return option
        hint = _did_you_mean_option(name, self.command)
        if not hint and self.args.words and "<command line>" in self.command.usage:
            hint = " (put -- before a command that has flags of its own)"
        raise UsageError(f"Unknown flag {name}{hint}", self.command)

    def _long(self, word: str, rest: list[str]) -> None:
        name, has_value, value = word.partition("=")
        option = self._lookup(name)
        if option.kind == "flag":
            if has_value and value not in {"true", "false"}:
                raise UsageError(f"Flag {name} takes no value", self.command)
            self._store(option, value != "false")
        elif has_value:
            self._store(option, value)
        elif option.implied is not None:
            self._store(option, option.implied)
        else:
            self._store(option, self._value(name, rest))

    def _short(self, word: str, rest: list[str]) -> None:
        letters = word[1:]
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            option = self._lookup(name)
            if option.kind == "flag":
                self._store(option, True)
                continue
            self._store(option, letters.removeprefix("=") if letters else self._value(name, rest))
            return

    def _value(self, name: str, rest: list[str]) -> str:
        if not rest:
            raise UsageError(f"Flag {name} needs a value", self.command)
        return rest.pop()

    def _store(self, option: Option, value: str | bool | int) -> None:
        if option.kind == "int":
            try:
                value = int(str(value))
            except ValueError:
                raise UsageError(f"Flag {option.names[-1]} needs a number, not {value!r}", self.command) from None
        elif option.choices and value not in option.choices:
            hint = f"one of {', '.join(option.choices)}"
            raise UsageError(f"Flag {option.names[-1]} needs {hint}, not {value!r}", self.command)
        if option.kind == "list":
            if option.dest not in self.args.given:
                setattr(self.args, option.dest, [])
            getattr(self.args, option.dest).append(value)
        else:
            setattr(self.args, option.dest, value)
        self.args.given.add(option.dest)


def _did_you_mean(word: str, group: Command) -> str:
    return _closest(word, [name for command in group.sub for name in (command.name, *command.aliases)])


def _did_you_mean_option(word: str, command: Command) -> str:
    return _closest(word, [name for option in _options(command) for name in option.names if name.startswith("--")])


def _closest(word: str, names: list[str]) -> str:
    from difflib import get_close_matches

    found = get_close_matches(word, names, 1)
    return f", did you mean {found[0]!r}?" if found else ""
