from __future__ import annotations

import json
from pathlib import Path

import pytest

from pylxc.errors import BadRequest, Unavailable
from pylxc.runtime.spec import IdMap, IdRange
from pylxc.services.instances import idmap

HOST = IdMap.single(1_000_000, 1_000_000_000)
ISOLATED = {"security.idmap.isolated": "true"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (1_000_000, 1_000_000_000)),
        ("alice:100000:65536\n", (1_000_000, 1_000_000_000)),
        ("alice:100000:65536\nroot:200000:1000\nroot:300000:65536\n", (300_000, 65_536)),
        ("0:400000:70000\n", (400_000, 70_000)),
        ("root:oops\nroot:500000:65536\n", (500_000, 65_536)),
    ],
)
def test_takes_the_first_wide_range_of_root(tmp_path: Path, text: str, expected: tuple[int, int]) -> None:
    path = tmp_path / "subuid"
    path.write_text(text)
    assert idmap.host_range(str(path)) == expected


def test_host_range_without_a_file_and_with_small_ones(tmp_path: Path) -> None:
    assert idmap.host_range(str(tmp_path / "none")) == (1_000_000, 1_000_000_000)
    (tmp_path / "small").write_text("root:1:1000\n")
    with pytest.raises(Unavailable, match="65536"):
        idmap.host_range(str(tmp_path / "small"))
    with pytest.raises(Unavailable, match="Is a directory"):
        idmap.host_range(str(tmp_path))


@pytest.mark.parametrize(
    "line", ["root", "root:1", "root:x:65536", "root:1:65536:1", "root:-1:65536", "0:1:99999999999"]
)
def test_a_malformed_line_of_roots_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "subuid"
    path.write_text(f"alice:oops\n{line}\n")
    with pytest.raises(Unavailable, match=f"Line 2 of {path} is malformed: '{line}'"):
        idmap.host_range(str(path))


def test_shared_by_default_and_none_when_privileged() -> None:
    assert idmap.choose({}, HOST, []) == HOST
    assert idmap.choose({"security.privileged": "true"}, HOST, []) is None


def test_isolated_ranges_do_not_overlap() -> None:
    first = idmap.choose(ISOLATED, HOST, [])
    assert first == IdMap.single(1_065_536, 65_536)
    second = idmap.choose(ISOLATED, HOST, [(1_065_536, 65_536)])
    assert second == IdMap.single(1_131_072, 65_536)
    between = idmap.choose(ISOLATED, HOST, [(1_065_536, 65_536), (1_196_608, 65_536)])
    assert between == IdMap.single(1_131_072, 65_536)
    wide = {**ISOLATED, "security.idmap.size": "100000"}
    assert idmap.choose(wide, HOST, [(1_065_536, 65_536), (1_196_608, 65_536)]) == IdMap.single(1_262_144, 100_000)


def test_isolated_instance_keeps_its_range() -> None:
    config = {**ISOLATED, "volatile.idmap.base": "2000000"}
    assert idmap.choose(config, HOST, [(1_065_536, 65_536)]) == IdMap.single(2_000_000, 65_536)
    assert idmap.choose(config, HOST, [(2_000_100, 65_536)]) == IdMap.single(1_065_536, 65_536)
    assert idmap.isolated_range(config) == (2_000_000, 65_536)


def test_says_when_ids_run_out() -> None:
    with pytest.raises(BadRequest, match=r"Not enough .*: of root's 65536 the first 65536 are .* 0 other"):
        idmap.choose(ISOLATED, IdMap.single(100_000, 65_536), [])


def test_needs_ids_that_are_in_both_files() -> None:
    apart = IdMap((IdRange(0, 1_000_000, 100_000),), (IdRange(0, 2_000_000, 100_000),))
    with pytest.raises(BadRequest, match="no 65536 ids that are in /etc/subuid and in /etc/subgid"):
        idmap.choose(ISOLATED, apart, [])


def test_a_range_of_ones_own_is_held_as_long_as_anybody_runs_with_it() -> None:
    config = {**ISOLATED, "security.idmap.base": "5000000"}
    now = idmap.to_lxd(IdMap.single(2_000_000, 65_536))
    assert list(idmap.held(config, HOST)) == [(5_000_000, 65_536)]
    running = {"volatile.last_state.power": "RUNNING", "volatile.idmap.current": now}
    assert list(idmap.held(running, HOST)) == [(2_000_000, 65_536)]
    assert list(idmap.held({**running, "volatile.last_state.power": "STOPPED"}, HOST)) == []
    shared = idmap.choose({"raw.idmap": "both 1000 1000"}, HOST, [])
    assert list(idmap.held({**running, "volatile.idmap.current": idmap.to_lxd(shared)}, HOST)) == []
    with pytest.raises(BadRequest, match=r"security.idmap.base=5000000 on .* 5065535 to 5065599"):
        idmap.choose(config, HOST, [(5_065_535, 65)])


def test_raw_idmap_is_laid_over() -> None:
    chosen = idmap.choose({"raw.idmap": "uid 1000 1000\nboth 50-51 0-1"}, IdMap.single(100_000, 65_536), [])
    assert chosen is not None
    assert chosen.uids == (
        IdRange(0, 50, 2),
        IdRange(2, 100_002, 998),
        IdRange(1000, 1000, 1),
        IdRange(1001, 101_001, 64_535),
    )
    assert chosen.gids == (IdRange(0, 50, 2), IdRange(2, 100_002, 65_534))


def test_volatile_keys_are_lxds() -> None:
    keys = idmap.volatile({}, IdMap.single(1_000_000, 65_536))
    assert keys["volatile.idmap.base"] == "0"
    assert json.loads(keys["volatile.idmap.next"]) == [
        {"Isuid": True, "Isgid": False, "Hostid": 1_000_000, "Nsid": 0, "Maprange": 65_536},
        {"Isuid": False, "Isgid": True, "Hostid": 1_000_000, "Nsid": 0, "Maprange": 65_536},
    ]
    assert idmap.volatile({"security.privileged": "true"}, None)["volatile.idmap.next"] == "[]"
