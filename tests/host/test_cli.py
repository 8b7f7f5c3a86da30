"""pylxc's own command against a running daemon and a busybox guest."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.terminal import Terminal
from tests.support.wait import until


@pytest.fixture(scope="module")
def guest(module_daemon: Daemon, busybox_files: list[str]) -> Iterator[str]:
    """Return a running container that the tests of this module share."""
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    alias = module_daemon.import_image("busybox", busybox_files)
    name = unique("g")
    module_daemon.command("launch", alias, name)
    yield name
    module_daemon.command("delete", "--force", name)


# -- exec ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)])
def test_exec_passes_the_exit_status_on(daemon: Daemon, guest: str, script: str, code: int) -> None:
    assert daemon.command("exec", guest, "--", "sh", "-c", script, check=False).returncode == code


def test_exec_of_what_cannot_be_run(daemon: Daemon, guest: str) -> None:
    missing = daemon.command("exec", guest, "no-such-command", check=False)
    assert (missing.returncode, missing.stderr) == (127, "Error: Command not found\n")
    assert daemon.command("exec", guest, "/etc/passwd", check=False).returncode == 126
    unknown = daemon.command("exec", "no-such-instance", "true", check=False)
    assert (unknown.returncode, unknown.stderr) == (1, "Error: Instance not found\n")


def test_exec_keeps_the_streams_apart(daemon: Daemon, guest: str) -> None:
    result = daemon.command("exec", guest, "--", "sh", "-c", "echo out; echo err >&2; cat", input="in\n")
    assert (result.stdout, result.stderr) == ("out\nin\n", "err\n")


def test_exec_is_binary_clean_through_pipes_and_files(daemon: Daemon, guest: str, tmp_path: Path) -> None:
    data = os.urandom(5 << 20)
    piped = subprocess.run(
        daemon.command_line("exec", guest, "cat"), env=daemon.env, input=data, check=True, capture_output=True
    )
    assert piped.stdout == data
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(data)
    with source.open("rb") as stdin, target.open("ab") as stdout:
        # A file opened for appending takes no splice: the fallback has to carry it.
        subprocess.run(
            daemon.command_line("exec", guest, "cat"), env=daemon.env, stdin=stdin, stdout=stdout, check=True
        )
    assert target.read_bytes() == data


def test_exec_loses_nothing_of_a_gibibyte(daemon: Daemon, guest: str) -> None:
    block = os.urandom(4 << 20)
    daemon.command("file", "push", "-", f"{guest}/tmp/block", input=block, text=False)
    script = "for i in $(seq 256); do cat /tmp/block; done"
    command = daemon.command_line("exec", guest, "--", "sh", "-c", script)
    with subprocess.Popen(command, env=daemon.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        assert client.stdout
        blocks = 0
        while received := client.stdout.read(len(block)):
            assert received == block
            blocks += 1
    assert (client.returncode, blocks) == (0, 256)


def test_exec_ends_when_the_command_does_though_stdin_stays_open(daemon: Daemon, guest: str) -> None:
    read_end, write_end = os.pipe()
    try:
        result = daemon.command("exec", guest, "true", stdin=read_end, timeout=20)
    finally:
        os.close(read_end)
        os.close(write_end)
    assert result.returncode == 0


def test_exec_with_closed_streams(daemon: Daemon, guest: str) -> None:
    line = " ".join(daemon.command_line("exec", guest, "--", "sh", "-c", "'echo out; exit 5'"))
    assert subprocess.run(["sh", "-c", f"{line} <&- >&- 2>&-"], env=daemon.env, check=False).returncode == 5


def test_exec_environment_user_and_directory(daemon: Daemon, guest: str) -> None:
    script = "echo $COLOUR $(pwd) $(id -u):$(id -g)"
    options = ["--env", "COLOUR=blue", "--cwd", "/tmp", "--user", "1000", "--group", "1001"]
    assert daemon.command("exec", guest, *options, "--", "sh", "-c", script).stdout == "blue /tmp 1000:1001\n"


def test_exec_forwards_signals(daemon: Daemon, guest: str) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    command = daemon.command_line("exec", guest, "--", "sh", "-c", script)
    with subprocess.Popen(command, env=daemon.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        assert client.stdout
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(signal.SIGTERM)
        assert client.stdout.read() == b"caught\n"
        assert client.wait(20) == 9


def test_exec_ends_with_its_client(daemon: Daemon, guest: str) -> None:
    def runs() -> bool:
        return "sleep 4711" in daemon.command("exec", guest, "ps").stdout

    with subprocess.Popen(
        daemon.command_line("exec", guest, "sleep", "4711"), env=daemon.env, stdin=subprocess.DEVNULL
    ) as client:
        until(runs, "the command runs")
        client.kill()
    until(lambda: not runs(), "the command is gone")


def test_exec_on_a_terminal(daemon: Daemon, guest: str) -> None:
    script = "tty; echo $TERM; stty size; read x; stty size; exit 3"
    with Terminal(
        daemon.command_line("exec", guest, "--", "sh", "-c", script), daemon.env, columns=97, rows=31
    ) as terminal:
        terminal.expect("/dev/pts/")
        terminal.expect("xterm")
        terminal.expect("31 97")
        terminal.resize(80, 24)
        terminal.signal(signal.SIGWINCH)
        terminal.type("\n")
        terminal.expect("24 80")
        assert terminal.wait() == 3


def test_interrupt_on_a_terminal_reaches_the_command(daemon: Daemon, guest: str) -> None:
    with Terminal(daemon.command_line("exec", guest, "--", "sh", "-c", "echo ready; sleep 60"), daemon.env) as terminal:
        terminal.expect("ready")
        terminal.type("\x03")
        assert terminal.wait() == 130


def test_forced_terminal_ends_with_its_input(daemon: Daemon, guest: str) -> None:
    result = daemon.command("exec", "-t", guest, "--", "sh", "-c", "tty; cat", input="typed\n", timeout=20)
    assert "/dev/pts/" in result.stdout
    assert result.stdout.count("typed") == 2  # the terminal's echo, and cat


def test_console_detaches_and_shows_its_log(daemon: Daemon, guest: str) -> None:
    with Terminal(daemon.command_line("console", guest), daemon.env) as terminal:
        terminal.expect("ctrl>+a q")
        terminal.type("\n")
        terminal.expect("# ")
        terminal.type("echo $((6 * 7))1\n")
        terminal.expect("421")
        terminal.type("\x01q")
        assert terminal.wait() == 0
    assert "421" in daemon.command("console", guest, "--show-log").stdout


# -- life ----------------------------------------------------------------------------------------------------------


def test_launch_list_pause_stop_delete(daemon: Daemon, guest: str, name: str) -> None:
    assert daemon.command("launch", "busybox", name, "-c", "user.colour=blue").stdout.startswith(f"Creating {name}\n")
    try:
        fields = daemon.command("list", name, "-c", "nst,user.colour", "-f", "csv").stdout
        assert fields == f"{name},RUNNING,CONTAINER,blue\n"
        daemon.command("pause", name)
        assert daemon.command("list", name, "-c", "s", "-f", "csv").stdout == "FROZEN\n"
        daemon.command("start", name)
        refused = daemon.command("delete", name, check=False)
        assert (refused.returncode, refused.stderr) == (
            1,
            "Error: The instance is currently running, stop it first or pass --force\n",
        )
        daemon.command("stop", "--force", name)
        new = unique("c")
        daemon.command("rename", name, new)
        name = new
        daemon.command("start", name)
    finally:
        daemon.command("delete", "--force", name)
    assert name not in daemon.instances()


def test_launch_reads_yaml_and_says_what_is_wrong(daemon: Daemon, guest: str, name: str) -> None:
    daemon.command("init", "busybox", name, input="config:\n  user.colour: red\ndescription: from yaml\n")
    shown = yaml.safe_load(daemon.command("config", "show", name).stdout)
    assert (shown["config"]["user.colour"], shown["description"]) == ("red", "from yaml")
    daemon.command("delete", name)
    missing = daemon.command("launch", "no-such-image", name, check=False)
    assert missing.returncode == 1
    assert missing.stderr.startswith("Error: Image 'no-such-image' not found")
    assert missing.stderr.count("\n") == 1
    wrong = daemon.command("launch", "busybox", name, "--wait=port:0", check=False)
    assert "Unknown condition 'port:0'" in wrong.stderr
    wrong = daemon.command("launch", "busybox", name, input="\udcff", errors="surrogateescape", check=False)
    assert wrong.stderr == "Error: What comes on stdin is no text\n"
    assert name not in daemon.instances()


def test_a_failure_among_several_names(daemon: Daemon, guest: str) -> None:
    result = daemon.command("start", "no-such-a", "no-such-b", check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "Error: no-such-a: Instance not found",
        "Error: no-such-b: Instance not found",
    ]


def test_nobody_answers_a_question(daemon: Daemon, guest: str) -> None:
    kept = daemon.command("delete", "-i", guest, input="", check=False)
    assert (kept.returncode, kept.stderr) == (1, "Error: User aborted delete operation\n")


def test_config_and_devices(daemon: Daemon, guest: str, tmp_path: Path) -> None:
    daemon.command("config", "set", guest, "user.a=1", "user.b=2")
    daemon.command("config", "set", guest, "user.c", "3")
    assert daemon.command("config", "get", guest, "user.c").stdout == "3\n"
    assert "Invalid KEY=VALUE" in daemon.command("config", "set", guest, "user.c", check=False).stderr
    daemon.command("config", "unset", guest, "user.a")
    edited = yaml.safe_load(daemon.command("config", "show", guest).stdout)
    assert "user.a" not in edited["config"]
    edited["config"]["user.b"] = "20"
    daemon.command("config", "edit", guest, input=yaml.safe_dump(edited))
    assert daemon.command("config", "get", guest, "user.b").stdout == "20\n"
    daemon.command("config", "device", "add", guest, "data", "disk", f"source={tmp_path}", "path=/srv/data")
    assert daemon.command("config", "device", "list", guest).stdout == "data\n"
    assert daemon.command("config", "device", "get", guest, "data", "path").stdout == "/srv/data\n"
    daemon.command("config", "device", "remove", guest, "data")
    assert daemon.command("config", "device", "list", guest).stdout == ""


def test_profiles(daemon: Daemon, guest: str) -> None:
    profile = unique("p")
    daemon.command("profile", "create", profile, input="description: a test\nconfig:\n  user.x: one\n")
    daemon.command("profile", "set", profile, "user.y=two")
    daemon.command("profile", "add", guest, profile)
    assert daemon.command("config", "get", "-e", guest, "user.y").stdout == "two\n"
    assert f"{profile},a test,1" in daemon.command("profile", "list", "-f", "csv").stdout.splitlines()
    daemon.command("profile", "remove", guest, profile)
    copy = unique("p")
    daemon.command("profile", "copy", profile, copy)
    assert daemon.command("profile", "get", copy, "user.x").stdout == "one\n"
    daemon.command("profile", "delete", profile, copy)


def test_edit_opens_the_editor(daemon: Daemon, guest: str, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/^description:.*/description: edited/' \"$1\"\n")
    editor.chmod(0o755)
    with Terminal(daemon.command_line("config", "edit", guest), {**daemon.env, "EDITOR": str(editor)}) as terminal:
        assert terminal.wait() == 0
    assert yaml.safe_load(daemon.command("config", "show", guest).stdout)["description"] == "edited"


def test_edit_opens_the_editor_again_with_the_error(daemon: Daemon, guest: str, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text(
        "#!/bin/sh\n"
        "if grep '^# Error: .*limits.cpus.*did you mean limits.cpu?' \"$1\"\n"
        "then sed -i 's/limits.cpus/limits.cpu/' \"$1\"\n"
        "else sed -i 's/^config:/config:\\n  limits.cpus: 1/' \"$1\"; fi\n"
    )
    editor.chmod(0o755)
    with Terminal(daemon.command_line("config", "edit", guest), {**daemon.env, "EDITOR": str(editor)}) as terminal:
        terminal.expect("did you mean limits.cpu?")
        terminal.expect("Press enter")
        terminal.type("\n")
        assert terminal.wait() == 0
    assert daemon.command("config", "get", guest, "limits.cpu").stdout == "1\n"
    daemon.command("config", "unset", guest, "limits.cpu")


def test_a_project_that_is_not_there_is_named(daemon: Daemon, guest: str) -> None:
    for words in (["list"], ["config", "show", guest], ["start", guest], ["operation", "list"], ["exec", guest, "true"],
                  ["image", "list"], ["image", "list", "recipe:"], ["init", "busybox"],
                  ["profile", "list"]):  # fmt: skip
        refused = daemon.command("--project", "nope", *words, check=False)
        assert (refused.returncode, refused.stderr) == (1, "Error: Project 'nope' not found (pylxc project list)\n"), (
            words
        )
    project = unique("p")
    daemon.command("project", "create", project)
    assert daemon.command("--project", project, "list", "-f", "csv").stdout == ""
    refused = daemon.command("--project", project, "start", guest, check=False)
    assert refused.stderr == "Error: Instance not found\n"
    daemon.command("project", "delete", project)


# -- files ---------------------------------------------------------------------------------------------------------


def test_push_and_pull_a_file(daemon: Daemon, guest: str, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    source = tmp_path / "data"
    source.write_bytes(data)
    daemon.command("file", "push", "-p", "--mode", "0640", "--uid", "7", str(source), f"{guest}/srv/a/b/")
    assert daemon.command("exec", guest, "--", "stat", "-c", "%a %u", "/srv/a/b/data").stdout == "640 7\n"
    daemon.command("file", "pull", f"{guest}/srv/a/b/data", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    assert (tmp_path / "back").stat().st_mode & 0o7777 == 0o640
    daemon.command("file", "push", "-", f"{guest}/srv/line", input="from stdin\n")
    assert daemon.command("file", "pull", f"{guest}/srv/line", "-").stdout == "from stdin\n"
    daemon.command("file", "edit", f"{guest}/srv/line", input="edited\n")
    assert daemon.command("exec", guest, "cat", "/srv/line").stdout == "edited\n"
    (tmp_path / "link").symlink_to("elsewhere")
    refused = daemon.command("file", "pull", f"{guest}/srv/line", str(tmp_path / "link"), check=False)
    assert (refused.returncode, "is a symbolic link" in refused.stderr) == (1, True)
    assert not (tmp_path / "elsewhere").exists()
    assert daemon.command("file", "pull", f"{guest}/srv/line", "/dev/stdout").stdout == "edited\n"
    daemon.command("file", "delete", f"{guest}/srv/line")
    gone = daemon.command("file", "pull", f"{guest}/srv/line", "-", check=False)
    assert gone.returncode == 1
    assert gone.stderr.startswith("Error: ")


def test_what_is_pulled_into_a_pipe_leaves_it_a_pipe(daemon: Daemon, guest: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    daemon.command(
        "exec", guest, "--", "sh", "-c", "echo deep > /tmp/f; mkdir -p /tmp/l; ln -s ../f /tmp/l/a; ln -s a /tmp/l/b"
    )
    for name, text in (("tmp/f", b"deep\n"), ("tmp/l/b", b"deep\n")):
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        daemon.command("file", "pull", f"{guest}/{name}", str(pipe))
        assert os.read(reader, 100) == text
        os.close(reader)
    assert daemon.command("file", "pull", f"{guest}/tmp/l/b", "-").stdout == "deep\n"
    assert stat.S_IMODE(pipe.lstat().st_mode) == 0o600
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_push_and_pull_a_tree(daemon: Daemon, guest: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(20):
        (tree / f"d{number % 3}").mkdir(parents=True, exist_ok=True)
        (tree / f"d{number % 3}" / f"f{number}").write_text(f"{number}\n" * number)
    (tree / "link").symlink_to("d0/f0")
    (tree / "again").hardlink_to(tree / "d0" / "f3")
    (tree / "sparse").write_bytes(b"")
    os.truncate(tree / "sparse", 1 << 20)
    os.chown(tree / "d0" / "f0", 1234, 4321)
    old = 1_000_000_000_123_456_789
    for place in ("d0/f0", "link", "sparse", "d1"):
        os.utime(tree / place, ns=(old, old), follow_symlinks=False)
    (tree / "d1").chmod(0o500)
    daemon.command("file", "push", "-r", str(tree), f"{guest}/srv/", "-p")
    assert daemon.command("exec", guest, "readlink", "/srv/tree/link").stdout == "d0/f0\n"
    inside = (
        "cd /srv/tree; stat -c '%u %g %Y' d0/f0; stat -c %Y link sparse d1; stat -c %b sparse; test again -ef d0/f3"
    )
    said = daemon.command("exec", guest, "--", "sh", "-c", inside).stdout.split()
    assert said == ["1234", "4321", *["1000000000"] * 4, "0"]
    (tmp_path / "back").mkdir()
    daemon.command("file", "pull", "-r", f"{guest}/srv/tree", str(tmp_path / "back"))
    result = subprocess.run(
        ["diff", "-r", str(tree), str(tmp_path / "back" / "tree")], check=False, capture_output=True
    )
    assert result.stdout == b""
    back = tmp_path / "back" / "tree"
    assert (back / "d1").stat().st_mode & 0o777 == 0o500
    assert ((back / "d0/f0").stat().st_uid, (back / "d0/f0").stat().st_gid) == (1234, 4321)
    assert all((back / place).lstat().st_mtime_ns == old for place in ("d0/f0", "link", "sparse", "d1"))
    assert (back / "sparse").stat().st_blocks == 0
    assert (back / "again").samefile(back / "d0" / "f3")


# -- the command itself --------------------------------------------------------------------------------------------


def test_usage_errors(daemon: Daemon, guest: str) -> None:
    wrong = daemon.command("lits", check=False)
    assert (wrong.returncode, wrong.stderr.splitlines()[0]) == (
        1,
        "Error: Unknown command 'lits', did you mean 'list'?",
    )
    wrong = daemon.command("list", "--fromat", "json", check=False)
    assert wrong.returncode == 1
    assert "did you mean '--format'" in wrong.stderr
    assert "Usage: pylxc list [<remote>:] [<filter>...] [flags]" in wrong.stderr
    wrong = daemon.command("file", "push", "--mode", "x", "a", f"{guest}/b", check=False)
    assert "Usage: pylxc file push " in wrong.stderr
    assert daemon.command("list", "nowhere:", check=False).stderr.startswith(
        'Error: The remote "nowhere" doesn\'t exist'
    )


def test_every_list_in_every_format(daemon: Daemon, guest: str) -> None:
    for command in ("list", "image list", "image alias list", "profile list", "operation list", "network list",
                    "storage list", "project list", "remote list"):  # fmt: skip
        words = command.split()
        json.loads(daemon.command(*words, "-f", "json").stdout)
        yaml.safe_load(daemon.command(*words, "--format=yaml").stdout)
        for form in ("csv", "compact", "table"):
            daemon.command(*words, "-f", form)


def test_tables_fit_the_terminal(daemon: Daemon, guest: str) -> None:
    with Terminal(daemon.command_line("list", "-c", "nspcdFaP"), daemon.env, columns=70) as terminal:
        assert terminal.wait() == 0
        lines = terminal.seen.splitlines()
    assert lines
    assert max(len(line) for line in lines) <= 70


def test_a_reader_that_goes_away_is_no_error(daemon: Daemon, guest: str) -> None:
    line = " ".join(daemon.command_line("query", "/1.0"))
    result = subprocess.run(
        ["bash", "-c", f"{line} | true"], env=daemon.env, check=False, capture_output=True, text=True
    )
    assert result.stderr == ""
    line = " ".join(daemon.command_line("list"))
    closed = subprocess.run(["bash", "-c", f"{line} >&-"], env=daemon.env, check=False, capture_output=True, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")


def test_completion_knows_the_grammar_and_the_names(daemon: Daemon, guest: str) -> None:
    def ask(*words: str) -> list[str]:
        return daemon.command("_complete", "fish", "--", *words).stdout.splitlines()

    assert any(line.startswith("launch\t") for line in ask("la"))
    assert f"{guest}\tRunning" in ask("exec", "")
    assert any(line.startswith("--cwd\t") for line in ask("exec", guest, "--c"))
    assert ask("list", "--format", "j") == ["json"]
    assert any(line.startswith("recipe:debian/12\t") for line in ask("launch", "recipe:"))
    assert ask("file", "push", "") == [":files"]
    assert f"{guest}/etc/passwd" in ask("file", "pull", f"{guest}/etc/pass")
    daemon.command("exec", guest, "--", "touch", "/etc/$(id) x", "/etc/odd\nline")
    asked = daemon.command("_complete", "bash", "--", f"pylxc file pull {guest}/etc/").stdout.splitlines()
    assert f"{guest}/etc/\\$\\(id\\)\\ x" in asked
    assert not any(line.endswith(("odd", "line")) for line in asked)
    assert any(line.startswith("limits.memory=\t") for line in ask("config", "set", guest, "limits.mem"))
    assert any(line.startswith("core.https_address\t") for line in ask("config", "get", "core.https_a"))
    assert ask("profile", "device", "remove", "default", "") == ["root\tdisk"]
    assert ask("storage", "volume", "move", "") == ["default/"]


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_completion_scripts_are_valid(daemon: Daemon, shell: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(daemon.command("completion", shell).stdout)
    if subprocess.run(["which", shell], check=False, capture_output=True).returncode == 0:
        subprocess.run([shell, "-n", str(script)], check=True)


def test_image_export_and_import(daemon: Daemon, guest: str, tmp_path: Path) -> None:
    assert daemon.command("image", "export", "busybox", str(tmp_path) + "/").stdout == "Image exported successfully!\n"
    files = sorted((str(path) for path in tmp_path.iterdir()), key=lambda path: "/meta-" not in path)
    fingerprint = json.loads(daemon.command("image", "list", "busybox", "-f", "json").stdout)[0]["fingerprint"]
    digest = hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()
    assert digest == fingerprint
    daemon.command("image", "alias", "create", "another", fingerprint[:12])
    assert "another" in daemon.command("image", "alias", "list", "-f", "csv").stdout
    daemon.command("image", "alias", "delete", "another")


def test_daemon_is_started_when_none_answers(daemon: Daemon, tmp_path: Path) -> None:
    env = {**daemon.env, "PYLXC_DIR": str(tmp_path / "own")}
    result = subprocess.run(
        daemon.command_line("list", "-f", "csv"), env=env, check=True, capture_output=True, text=True
    )
    assert result.stdout == ""
    pid = int((tmp_path / "own" / "pylxcd.pid").read_text())
    try:
        assert os.getsid(pid) == pid
        subprocess.run(daemon.command_line("admin", "waitready", "--timeout", "10"), env=env, check=True)
    finally:
        subprocess.run(daemon.command_line("admin", "shutdown", "--timeout", "30"), env=env, check=True)
    until(
        lambda: not os.path.exists(f"/proc/{pid}") or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2], "it ends"
    )


def test_monitor_shows_what_happens(daemon: Daemon, guest: str) -> None:
    command = daemon.command_line("monitor", "--type=lifecycle", "--format=json")
    with subprocess.Popen(command, env=daemon.env, stdout=subprocess.PIPE) as monitor:
        assert monitor.stdout
        os.set_blocking(monitor.stdout.fileno(), False)
        seen = b""

        def saw() -> bool:
            nonlocal seen
            daemon.command("config", "set", guest, "user.seen=1")
            daemon.command("config", "unset", guest, "user.seen")
            seen += monitor.stdout.read() or b"" if monitor.stdout else b""
            return b"instance-updated" in seen

        until(saw, "an event")
        monitor.send_signal(signal.SIGINT)
        assert monitor.wait(10) == 130
