"""What every test can use: a running daemon, images, and the rule that on CI nothing is skipped."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.images import image_files
from tests.support.leaks import remove_dead_groups
from tests.support.tls import Authority

LOG_CHARACTERS = 12_000
# A shell that runs the tests in the background ignores these, and what the tests start would inherit that.
for _ignored in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_ignored) is signal.SIG_IGN:
        signal.signal(_ignored, signal.default_int_handler)

REQUIRE_ALL = os.environ.get("PYLXC_REQUIRE_ALL") == "1"


def _room(item: pytest.Item) -> str:
    return item.path.relative_to(item.config.rootpath).parts[1]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave nothing in the control groups' file system, once all the processes that run tests are done."""
    if os.geteuid() == 0 and not hasattr(session.config, "workerinput"):
        remove_dead_groups()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs root when there is none; run fast tests first, but what takes half of the time beside them."""
    order = {"unit": 0, "repo": 1, "host": 2, "clients": 3, "vm": -1 if hasattr(config, "workerinput") else 4}
    items.sort(key=lambda item: order.get(_room(item), 2))
    for item in items:
        if _room(item) in ("host", "clients", "vm") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Turn a skip into a failure where everything has to run (CI sets PYLXC_REQUIRE_ALL=1); attach daemons' logs."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but PYLXC_REQUIRE_ALL=1: {report.longrepr}"
    if report.failed:
        for daemon in Daemon.open:
            report.sections.append((f"pylxcd on {daemon.dir}", daemon.logs()[-LOG_CHARACTERS:]))
    return report  # type: ignore[return-value]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """Turn the skip of a whole module into a failure, as above."""
    report: pytest.CollectReport = yield  # type: ignore[assignment]
    if REQUIRE_ALL and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, but PYLXC_REQUIRE_ALL=1: {report.longrepr}"
    return report  # type: ignore[return-value]


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """Skip, with a reason, unless the host has these commands."""

    def check(*commands: str) -> None:
        missing = [command for command in commands if not shutil.which(command)]
        if missing:
            pytest.skip(f"needs {', '.join(missing)} (make test installs them on Debian)")

    return check


@pytest.fixture
def name() -> str:
    """Return an instance name nobody else uses."""
    return unique("c")


@pytest.fixture(scope="session")
def busybox_files() -> list[str]:
    """Return the image files of recipe:busybox."""
    return image_files("busybox")


@pytest.fixture(scope="session")
def debian12_files() -> list[str]:
    """Return the image files of recipe:debian/12."""
    return image_files("debian/12")


@pytest.fixture(scope="session")
def debian13_files() -> list[str]:
    """Return the image files of recipe:debian/13."""
    return image_files("debian/13")


@pytest.fixture
def make_daemon() -> Iterator[Callable[..., Daemon]]:
    """Make daemons of one test's own: `make_daemon()` returns one that is not started yet."""
    daemons: list[Daemon] = []

    def make(base: str = "/var/tmp") -> Daemon:
        daemons.append(Daemon(base))
        return daemons[-1]

    yield make
    problems = [problem for daemon in daemons for problem in daemon.close()]
    assert not problems, problems


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the certificate authority of the servers of tests."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def trusting_daemon(authority: Authority) -> Iterator[Daemon]:
    """Run one daemon for a module's tests that trusts `authority` and has a pool, without network."""
    daemon = Daemon()
    daemon.env["SSL_CERT_FILE"] = authority.file
    try:
        daemon.start()
        daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
        yield daemon
    finally:
        problems = daemon.close()
    assert not problems, problems


@pytest.fixture(scope="module")
def module_daemon() -> Iterator[Daemon]:
    """Run one daemon for a module's tests, without storage or network; `daemon` is what tests ask for."""
    daemon = Daemon()
    try:
        daemon.start()
        yield daemon
    finally:
        problems = daemon.close()
    assert not problems, problems


@pytest.fixture
def daemon(module_daemon: Daemon) -> Daemon:
    """Return the module's running daemon."""
    return module_daemon


@pytest.fixture(scope="module")
def pools_daemon(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    """Return the module's daemon with a pool of each driver, called like it, and the image busybox."""
    preseed = {
        "storage_pools": [
            {"name": "btrfs", "driver": "btrfs", "config": {"size": "1GiB"}},
            {"name": "dir", "driver": "dir"},
        ],
        "profiles": [{"name": "default", "devices": {"root": {"type": "disk", "path": "/", "pool": "dir"}}}],
    }
    module_daemon.command("admin", "init", "--preseed", input=json.dumps(preseed))
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


@pytest.fixture
def busybox(daemon: Daemon, busybox_files: list[str]) -> str:
    """Return the alias of the busybox image in `daemon`."""
    return daemon.import_image("busybox", busybox_files)
