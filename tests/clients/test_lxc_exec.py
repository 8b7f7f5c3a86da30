from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time

from tests.clients.conftest import Lxc
from tests.support.terminal import Terminal
from tests.support.wait import until


def test_exit_codes(lxc: Lxc, guest: str) -> None:
    assert lxc("exec", guest, "--", "true").returncode == 0
    assert lxc("exec", guest, "--", "sh", "-c", "exit 7", check=False).returncode == 7
    assert lxc("exec", guest, "--", "no-such-command", check=False).returncode == 127
    assert lxc("exec", guest, "--", "/etc/passwd", check=False).returncode == 126
    assert lxc("exec", guest, "--", "sh", "-c", "kill -9 $$", check=False).returncode == 137


def test_streams_are_apart(lxc: Lxc, guest: str) -> None:
    result = lxc("exec", guest, "--", "sh", "-c", "echo out; echo err >&2; cat", input="in\n")
    assert (result.stdout, result.stderr) == ("out\nin\n", "err\n")


def test_streams_are_binary_clean(lxc: Lxc, guest: str) -> None:
    data = os.urandom(3 << 20)
    result = lxc("exec", guest, "--", "cat", input=data, text=False)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


def test_environment_user_and_directory(lxc: Lxc, guest: str) -> None:
    script = "echo $COLOUR $HOME $(pwd) $(id -u):$(id -g)"
    options = ["--env", "COLOUR=blue", "--cwd", "/tmp", "--user", "1000", "--group", "1001"]
    assert lxc("exec", guest, *options, "--", "sh", "-c", script).stdout.split() == ["blue", "/tmp", "1000:1001"]
    assert lxc("exec", guest, "--", "sh", "-c", script).stdout.split() == ["/root", "/root", "0:0"]


def test_a_terminal_and_its_size(guest: str, lxc_env: dict[str, str]) -> None:
    script = "tty; stty size; while [ \"$(stty size)\" = '31 97' ]; do sleep 0.1; done; stty size; exit 3"
    with Terminal(["lxc", "exec", guest, "--", "sh", "-c", script], lxc_env, columns=97, rows=31) as terminal:
        terminal.expect("/dev/pts/")
        terminal.expect("31 97")
        terminal.resize(80, 24)

        def changed() -> bool:
            terminal.signal(signal.SIGWINCH)  # lxc may not have listened for it yet
            return "24 80" in terminal.read(0.2)

        until(changed, "the new size, which travels on a connection of its own")
        assert terminal.wait() == 3


def test_interrupt_reaches_the_command(guest: str, lxc_env: dict[str, str]) -> None:
    with Terminal(["lxc", "exec", guest, "--", "sh", "-c", "echo ready; sleep 60"], lxc_env) as terminal:
        terminal.expect("ready")
        terminal.type("\x03")
        assert terminal.wait() == 130


def test_client_that_is_killed_takes_the_command_along(lxc: Lxc, guest: str, lxc_env: dict[str, str]) -> None:
    command = ["lxc", "exec", guest, "--", "sleep", "4711"]
    with subprocess.Popen(command, env=lxc_env, stdin=subprocess.DEVNULL) as client:
        until(lambda: "sleep 4711" in lxc("exec", guest, "--", "ps").stdout, "the command")
        client.kill()
    until(lambda: "sleep 4711" not in lxc("exec", guest, "--", "ps").stdout, "its end")


def test_console_attach_and_detach(guest: str, lxc_env: dict[str, str]) -> None:
    with Terminal(["lxc", "console", guest], lxc_env) as terminal:
        terminal.expect("To detach from the console, press: <ctrl>+a q")
        terminal.type("\n")
        terminal.expect("# ")
        terminal.type("echo $((6 * 7))1\n")
        terminal.expect("421")

        def detached() -> bool:
            terminal.type("\x01")
            time.sleep(0.3)  # lxc wants the two keys in two reads, which nothing tells of: they may have to come again
            terminal.type("q")
            return terminal.has_ended(1)

        until(detached, "the console lets go")
        assert terminal.wait() == 0


def test_console_log(lxc: Lxc, guest: str, lxc_env: dict[str, str]) -> None:
    lxc("exec", guest, "--", "sh", "-c", "echo a-line-on-the-console > /dev/console")
    until(lambda: "a-line-on-the-console" in lxc("console", guest, "--show-log").stdout, "the line")
