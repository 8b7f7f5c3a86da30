from __future__ import annotations

import pytest

from pylxc.cli.grammar import Args, Command, Option, Parser, UsageError
from pylxc.cli.main import HIDDEN, ROOT, TABLE, find


def read(*argv: str) -> tuple[Command, Args]:
    parser = Parser(find, ROOT)
    args = parser.parse(argv)
    parser.check_words()
    return parser.command, args


def walk(command: Command) -> list[Command]:
    """Return a command and all below it; a module of its own must call it what the list of its parent calls it."""
    found = [command]
    for child in command.sub:
        loaded = child.loaded()
        assert (loaded.name, loaded.summary, loaded.aliases) == (child.name, child.summary, child.aliases)
        found += walk(loaded)
    return found


def test_every_command_of_the_table_is_in_its_module() -> None:
    assert {command.name for command in walk(ROOT)} >= {*TABLE, "template", "create"}
    assert find(HIDDEN.name)


@pytest.mark.parametrize("name", list(TABLE))
def test_every_command_is_sound(name: str) -> None:
    top = find(name)
    assert top is not None
    for command in walk(top):
        assert (command.run is None) == bool(command.sub)
        spellings = [spelling for option in command.options for spelling in option.names]
        assert len(spellings) == len(set(spellings))
        names = [one for child in command.sub for one in (child.name, *child.aliases)]
        assert len(names) == len(set(names))
        assert all(option.dest.isidentifier() for option in command.options)


def test_options_stand_between_the_words() -> None:
    _, args = read("exec", "--user", "5", "c1", "--env", "A=1", "--env=B=2", "-T", "--", "ls", "-l", "--", "x")
    assert args.words == ["c1", "ls", "-l", "--", "x"]
    assert (args.user, args.env, args.force_noninteractive, args.force_interactive) == (5, ["A=1", "B=2"], True, False)


def test_values_in_all_their_spellings() -> None:
    for spelling in (["-f", "csv"], ["-fcsv"], ["-f=csv"], ["--format", "csv"], ["--format=csv"]):
        assert read("list", *spelling)[1].format == "csv"
    assert read("stop", "c1", "--timeout", "-1", "-f")[1].timeout == -1
    assert read("start", "c1", "--console")[1].console == "console"
    assert read("start", "c1")[1].console is None


def test_lists_are_not_shared_between_calls() -> None:
    assert read("launch", "i", "-p", "a")[1].profile == ["a"]
    assert read("launch", "i", "-p", "b")[1].profile == ["b"]


def test_aliases_and_global_options_anywhere() -> None:
    command, args = read("--project", "p", "ls", "-q")
    assert (command.name, args.project, args.quiet) == ("list", "p", True)
    assert read("image", "alias", "rm", "x")[0].path == "image alias delete"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lits"], "Unknown command 'lits', did you mean 'list'?"),
        (["image", "lits"], "Unknown command 'lits', did you mean 'list'?"),
        (["list", "--fromat", "x"], "Unknown flag --fromat, did you mean '--format'?"),
        (["exec", "c1", "ls", "-l"], "Unknown flag -l (put -- before a command that has flags of its own)"),
        (["list", "-f", "xml"], "Flag --format needs one of csv, json, table, yaml, compact, not 'xml'"),
        (["stop", "c1", "--timeout", "soon"], "Flag --timeout needs a number, not 'soon'"),
        (["list", "-f"], "Flag -f needs a value"),
        (["list", "--fast=5"], "Flag --fast takes no value"),
        (["rename", "a"], "Too few arguments"),
        (["rename", "a", "b", "c"], "Unexpected argument 'c'"),
    ],
)
def test_what_does_not_fit(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*argv)
    assert str(caught.value) == message


def test_usage_line() -> None:
    assert read("exec", "c", "x")[0].usage_line() == "pylxc exec [<remote>:]<instance> [flags] [--] <command line>"
    command = Command("x", "", options=(Option("-a", "--all", help=""),))
    assert command.usage_line() == "pylxc [flags]"
