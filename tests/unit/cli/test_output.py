from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pylxc.cli import yamltext
from pylxc.cli.grammar import UsageError
from pylxc.cli.image_files import _file_name, _Files, _place
from pylxc.cli.list import COMMANDS, parse_columns
from pylxc.cli.list_filter import matches
from pylxc.cli.output import _fit, _wrap, format_time, natural, one_line, show, sort_rows
from pylxc.errors import BadRequest, Internal
from pylxc.units import binary_size

INSTANCE: dict[str, Any] = {
    "name": "web1",
    "status": "Running",
    "type": "container",
    "architecture": "x86_64",
    "expanded_config": {"user.colour": "blue", "volatile.base_image": "f" * 64},
    "expanded_devices": {
        "root": {"type": "disk", "path": "/", "pool": "fast"},
        "eth0": {"type": "nic", "parent": "br0"},
    },
    "state": {
        "network": {
            "lo": {"type": "loopback", "addresses": [{"family": "inet", "address": "127.0.0.1", "scope": "local"}]},
            "eth0": {
                "type": "broadcast",
                "addresses": [
                    {"family": "inet", "address": "10.1.2.3", "scope": "global"},
                    {"family": "inet6", "address": "fe80::1", "scope": "link"},
                ],
            },
        }
    },
}


def test_table_looks_as_lxc_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    show("table", ("NAME", "TYPE"), [["a", "CONTAINER"], ["b", "one\ntwo"]], [])
    assert capsys.readouterr().out == (
        "+------+-----------+\n"
        "| NAME |   TYPE    |\n"
        "+------+-----------+\n"
        "| a    | CONTAINER |\n"
        "+------+-----------+\n"
        "| b    | one       |\n"
        "|      | two       |\n"
        "+------+-----------+\n"
    )


def test_nothing_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A guest chooses the names of its interfaces, and a server what is wrong."""
    for form in ("table", "compact"):
        show(form, ("A", "B"), [["10.0.0.2 (\x1b]0;x\x07)", "\x9b2Jé"], ["short", "two\nlines"]], [])
        shown = capsys.readouterr().out
        assert "10.0.0.2 (?]0;x?)" in shown
        assert "?2Jé" in shown
        assert shown.replace("\n", "").isprintable()
    assert one_line(BadRequest("no\n\x1b[31m such thing")) == "no ?[31m such thing"


def test_other_formats(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [['say "hi", you', "x"]]
    show("csv", ("A", "B"), rows, [])
    assert capsys.readouterr().out == '"say ""hi"", you",x\n'
    show("compact", ("A", "B"), [["one", "x"]], [])
    assert capsys.readouterr().out == "   A   B  \n  one  x  \n"
    show("json", (), [], [{"a": "é"}])
    assert json.loads(capsys.readouterr().out) == [{"a": "é"}]
    show("yaml", (), [], [{"b": 1, "a": "1"}])
    assert capsys.readouterr().out == '- b: 1\n  a: "1"\n'


def test_wrapping_loses_no_text() -> None:
    text = "a somewhat longer description of things"
    assert " ".join(_wrap([text], 12)) == text
    assert "".join(_wrap(["f" * 30], 12)) == "f" * 30
    cells, widths = _fit([[["x"], [text]]], [1, len(text)])
    assert (cells, widths) == ([[["x"], [text]]], [1, len(text)])  # no terminal, nothing to fit


def test_numbers_sort_by_value() -> None:
    assert sorted(["c10", "c2", "b"], key=natural) == ["b", "c2", "c10"]
    assert sort_rows([["c10"], ["c9"]]) == [["c9"], ["c10"]]


def test_long_lists_sort_as_short_ones() -> None:
    texts = {
        f"{prefix}{number * 7919 % 1009:x}{suffix}"
        for number in range(300)
        for prefix, suffix in ("ab", "1é", ("", ""))
    }
    assert len(texts) > 500
    assert [text for (text,) in sort_rows([[text] for text in texts])] == sorted(texts, key=natural)


def test_columns_are_as_wide_as_they_look(capsys: pytest.CaptureFixture[str]) -> None:
    show("compact", ("A", "B"), [["x", "1"], ["日本", "2"], ["long\né", "3"]], None)
    assert capsys.readouterr().out.split("\n") == [
        "   A    B  ",
        "  x     1  ",
        "  日本  2  ",
        "  long  3  ",
        "  é        ",
        "",
    ]


def test_times_and_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert format_time("2026-11-21T03:10:43.649171983Z") == "2026/11/21 03:10 UTC"
    assert format_time("2026-11-21T05:10:43+02:00") == "2026/11/21 03:10 UTC"
    assert format_time("0001-01-01T00:00:00Z", "never") == "never"
    assert format_time("1970-01-01T00:00:00Z", "never") == "never"
    assert [binary_size(n) for n in (0, 1023, 1024, 3 << 30)] == ["0B", "1023B", "1.00KiB", "3.00GiB"]


def test_columns_of_list() -> None:
    cells = {
        title: cell(INSTANCE)
        for title, cell, _ in parse_columns("n46bf,user.colour:HUE:2,devices:eth0.parent", COMMANDS[0])
    }
    assert cells == {
        "NAME": "web1", "IPV4": "10.1.2.3 (eth0)", "IPV6": "", "STORAGE POOL": "fast", "BASE IMAGE": "f" * 12,
        "HUE": "bl", "ETH0.PARENT": "br0",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["z", "n,,s", "n,", "user.a:A:x", "devices:eth0"])
def test_columns_that_are_wrong(text: str) -> None:
    with pytest.raises(UsageError):
        parse_columns(text, COMMANDS[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("we", True), ("eb1", False), (".*1", True), ("^eb", False), ("u.colour=blue", True), ("user.colour=b.*", True),
        ("user.colour=b", False), ("status=running,frozen", True), ("type=virtual-machine", False),
        ("ipv4=10.1.0.0/16", True), ("ipv4=10.2.0.0/16", False), ("ipv6=nonsense", False), ("[", False),
    ],
)  # fmt: skip
def test_filters(text: str, expected: bool) -> None:
    assert matches(INSTANCE, [text]) is expected


def test_yaml_is_what_it_was() -> None:
    data: dict[str, Any] = {
        "b": "true", "a": ["1", "", "two\nlines\n", "plain"], "c": {}, "d": None, "e": True, "f": 5,
        "created_at": "2026-11-21T03:10:43Z",
    }  # fmt: skip
    text = yamltext.dump(data)
    assert text.startswith('b: "true"\n')
    assert "created_at: 2026-11-21T03:10:43Z\n" in text
    assert {**yaml.safe_load(text), "created_at": data["created_at"]} == data


@pytest.mark.parametrize(
    ("target", "name", "ending", "expected"),
    [
        ("{tmp}", "x.tar.xz", None, "{tmp}/x.tar.xz"),
        ("{tmp}", "x.squashfs", ".root", "{tmp}/x.squashfs"),
        ("{tmp}/mine", "x.tar.xz", None, "{tmp}/mine.tar.xz"),
        ("{tmp}/mine", "x.tar.xz", "", "{tmp}/mine"),
        ("{tmp}/mine", "x.squashfs", ".root", "{tmp}/mine.root"),
    ],
)
def test_place_of_an_exported_image(
    tmp_path: object, target: str, name: str, ending: str | None, expected: str
) -> None:
    assert _place(target.format(tmp=tmp_path), name, ending) == expected.format(tmp=tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("x.tar.xz", "x.tar.xz"), ("../../x", "x"), (".bashrc", "f.part"), ("..", "f.part"), ("", "f.part"),
     ("a\0b", "f.part"), ("a\x1bb", "f.part")],
)  # fmt: skip
def test_a_server_does_not_choose_any_name(name: str, expected: str) -> None:
    assert _file_name(name, "f.part") == expected


def test_an_image_is_two_files_at_most(tmp_path: Path) -> None:
    with _Files() as files:
        files.create(f"{tmp_path}/a")
        with pytest.raises(Internal):
            files.create(f"{tmp_path}/a")
        files.create(f"{tmp_path}/b")
        with pytest.raises(Internal):
            files.create(f"{tmp_path}/c")


def test_yaml_keeps_the_texts_of_configuration() -> None:
    text = "ephemeral: true\nconfig: {limits.cpu: 2, security.nesting: yes}\ndevices: {root: {size: 010}}\nsize: 3\n"
    assert yamltext.load(text, "instance") == {
        "ephemeral": True,
        "config": {"limits.cpu": "2", "security.nesting": "yes"},
        "devices": {"root": {"size": "010"}},
        "size": 3,
    }
    with pytest.raises(BadRequest, match="not valid YAML"):
        yamltext.load("a: *nothing", "instance")
    assert yamltext.load("", "instance") == {}
