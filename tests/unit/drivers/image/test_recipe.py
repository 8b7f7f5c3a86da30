"""What mmdebstrap is told to do."""

from __future__ import annotations

from pathlib import Path

from pylxc.drivers.image import recipe as driver
from pylxc.drivers.image.apt import Source
from pylxc.drivers.image.recipe_file import RecipeBook
from pylxc.resources import resource_dir


def test_arguments_for_ubuntu(tmp_path: Path) -> None:
    jammy = RecipeBook(str(resource_dir("images"))).find("ubuntu/22.04")
    sources = [Source("http://m/ubuntu", suite, ("main", "universe"), "/k.gpg") for suite in jammy.suites]
    arguments = driver._prepare(jammy, sources, str(tmp_path))
    assert arguments[-5:] == [
        "jammy",
        f"{tmp_path}/tree/rootfs",
        "deb [signed-by=/k.gpg] http://m/ubuntu jammy main universe",
        "deb [signed-by=/k.gpg] http://m/ubuntu jammy-updates main universe",
        "deb [signed-by=/k.gpg] http://m/ubuntu jammy-security main universe",
    ]
    assert "--variant=apt" in arguments
    (include,) = [argument for argument in arguments if argument.startswith("--include=")]
    assert {"systemd-sysv", "curl"} <= set(include.removeprefix("--include=").split(","))
    overlay = tmp_path / "overlay"
    guest = (overlay / "etc/apt/sources.list.d/ubuntu.sources").read_text()
    assert guest.startswith("Types: deb\nURIs: http://m/ubuntu\nSuites: jammy\nComponents: main universe\n")
    assert (overlay / "etc/systemd/network/eth0.network").exists()
