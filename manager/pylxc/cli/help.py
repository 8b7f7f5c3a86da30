"""Help, printed from the grammar."""

from __future__ import annotations

from pylxc.cli.grammar import GLOBAL, Args, Command, Option, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pylxc.cli.session import Session


def _flags(options: Iterable[Option]) -> list[tuple[str, str]]:
    rows = []
    for option in options:
        short = next((name for name in option.names if len(name) == 2), "")
        long = next((name for name in option.names if name.startswith("--")), "")
        if option.implied is not None:
            long += f'[="{option.implied}"]'
        text = option.help if option.default in (None, False) else f'{option.help} (default "{option.default}")'
        rows.append((f"{short}, {long}" if short and long else short or f"    {long}", text))
    return rows


def _columns(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max((len(left) for left, _ in rows), default=0) + 3
    return "\n".join(f"  {left:<{width}}{right}".rstrip() for left, right in rows)


def text(command: Command) -> str:
    """Return the help of a command."""
    sections = [f"Description:\n  {command.summary}"]
    if command.details:
        sections.append("\n".join(f"  {line}".rstrip() for line in command.details.strip().splitlines()))
    sections.append(f"Usage:\n  {command.usage_line()}")
    if command.aliases:
        sections.append("Aliases:\n  " + ", ".join((command.name, *command.aliases)))
    if command.examples:
        lines = [f"  pylxc {line}\n      {what}" for line, what in command.examples]
        sections.append("Examples:\n" + "\n\n".join(lines))
    if command.sub:
        sections.append("Available Commands:\n" + _columns((child.name, child.summary) for child in command.sub))
    if command.options:
        sections.append("Flags:\n" + _columns(_flags(command.options)))
    sections.append("Global Flags:\n" + _columns(_flags(GLOBAL)))
    if command.sub:
        sections.append(f'Use "{command.usage_line().split(" [")[0]} [command] --help" for more about a command.')
    return "\n\n".join(sections)


def show(command: Command) -> None:
    """Print the help of a command."""
    print(text(command))


def _help(_session: Session, args: Args) -> None:
    from pylxc.cli.main import ROOT, find

    command = ROOT
    for word in args.words:
        child = find(word) if command is ROOT else command.child(word)
        if child is None:
            raise UsageError(f"Unknown command {word!r}", command)
        child.path = word if command is ROOT else f"{command.path} {word}"
        command = child
    show(command)


COMMANDS = (Command("help", "Show help on a command", "[<command>...]", _help, words=(0, None), complete=("command",)),)
