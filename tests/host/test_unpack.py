"""Unpacking images: every format, awkward images, and archives that mean harm."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pylxc.errors import BadRequest, Internal, Unavailable
from pylxc.paths import Paths
from pylxc.runtime.handle import Runtime
from pylxc.services import unarchive
from pylxc.services.images.store import Store
from pylxc.services.images.unpack import Unpacker

METADATA = b"architecture: x86_64\ncreation_date: 1700000000\n"
COMPRESSORS = {
    "tar": [],
    "gz": ["gzip", "-c"],
    "bz2": ["bzip2", "-c"],
    "xz": ["xz", "-c"],
    "lzma": ["xz", "-c", "--format=lzma"],
    "zst": ["zstd", "-qc"],
}


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    root = Path(f"/var/tmp/pt-unpack-{os.getpid()}")
    root.mkdir()
    runtime = Runtime(Paths(str(root)), lambda _key, _exit: None)
    runtime.open()
    yield runtime
    runtime.close()
    shutil.rmtree(root)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    # Not below /tmp itself: a tmpfs of an old kernel cannot map owners.
    path = Path(f"/var/tmp/pt-unpack-{os.getpid()}-{tmp_path.name}")
    path.mkdir()
    yield path
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture
def try_unpack(runtime: Runtime, place: Path) -> Callable[..., Path]:
    """Put files into a store and unpack them; return the directory."""

    def run(metadata: bytes | Path, rootfs: bytes | Path | None = None) -> Path:
        store = Store(str(place / "images"))
        unpacker = Unpacker(store, runtime)
        with store.stage() as staging:
            for part, content in (("metadata", metadata), ("rootfs", rootfs)):
                if content is not None:
                    staging.begin(part)
                    staging.write(content.read_bytes() if isinstance(content, Path) else content)
            staging.finish()
            unpacker.read_metadata(staging)
            fingerprint = store.put(staging)
        target = place / "target"
        target.mkdir(exist_ok=True)
        unpacker.unpack(fingerprint, str(target))
        return target

    return run


class Tar:
    """A tar archive in the making."""

    def __init__(self, *, metadata: bytes | None = METADATA, rootfs: bool = True) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)
        if metadata is not None:
            self.file("metadata.yaml", metadata)
        if rootfs:
            self.directory("rootfs")

    def entry(self, name: str, kind: bytes, content: bytes = b"", **fields: object) -> Tar:
        info = tarfile.TarInfo(name)
        info.type = kind
        info.size = len(content)
        info.mode = 0o644
        for field, value in fields.items():
            setattr(info, field, value)
        self._tar.addfile(info, io.BytesIO(content))
        return self

    def file(self, name: str, content: bytes = b"x", **fields: object) -> Tar:
        return self.entry(name, tarfile.REGTYPE, content, **fields)

    def directory(self, name: str, mode: int = 0o755) -> Tar:
        return self.entry(name, tarfile.DIRTYPE, mode=mode)

    def symlink(self, name: str, target: str) -> Tar:
        return self.entry(name, tarfile.SYMTYPE, linkname=target)

    def hard_link(self, name: str, target: str) -> Tar:
        return self.entry(name, tarfile.LNKTYPE, linkname=target)

    def done(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


def compress(content: bytes, form: str) -> bytes:
    command = COMPRESSORS[form]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout if command else content


def make_tree(root: Path) -> Path:
    """Make a tree that has a bit of everything that a machine's root may hold."""
    tree = root / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)
    program = tree / "usr/bin/ping"
    program.write_bytes(b"\x7fELF")
    os.chown(program, 0, 12)
    program.chmod(0o4755)
    os.utime(program, (1, 1_600_000_000))
    os.setxattr(program, "user.note", b"kept")
    os.setxattr(program, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.link(program, tree / "usr/bin/ping4")
    (tree / "bin").symlink_to("usr/bin")
    (tree / "etc").mkdir()
    (tree / "etc/absolute").symlink_to("/etc/passwd")
    with open(tree / "etc/holes", "wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"island")
    os.mkfifo(tree / "etc/fifo")
    os.mknod(tree / "etc/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    home = tree / "home"
    home.mkdir()
    os.chown(home, 1000, 1001)
    subprocess.run(["setfacl", "-m", "u:4242:rwx", str(home)], check=False)
    return tree


def check_tree(root: Path) -> None:
    program = (root / "usr/bin/ping").stat()
    assert (program.st_uid, program.st_gid, stat.S_IMODE(program.st_mode)) == (0, 12, 0o4755)
    assert program.st_mtime == 1_600_000_000
    assert program.st_ino == (root / "usr/bin/ping4").stat().st_ino
    assert os.getxattr(root / "usr/bin/ping", "user.note") == b"kept"
    assert os.getxattr(root / "usr/bin/ping", "security.capability")[4:8] == bytes.fromhex("00200000")
    assert os.readlink(root / "bin") == "usr/bin"
    assert os.readlink(root / "etc/absolute") == "/etc/passwd"
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    holes = (root / "etc/holes").stat()
    assert holes.st_size == 64 << 20
    assert holes.st_blocks * 512 < 8 << 20
    with open(root / "etc/holes", "rb") as file:
        file.seek(32 << 20)
        assert file.read(6) == b"island"
    assert stat.S_ISFIFO((root / "etc/fifo").lstat().st_mode)
    assert not (root / "etc/null").exists()
    assert ((root / "home").stat().st_uid, (root / "home").stat().st_gid) == (1000, 1001)


def tar_of(tree: Path) -> bytes:
    command: list[str | Path] = [
        "tar",
        "--create",
        "--sparse",
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        "--numeric-owner",
    ]
    return subprocess.run([*command, "--file=-", "-C", tree, "."], capture_output=True, check=True).stdout


def squashfs_of(tree: Path, target: Path) -> Path:
    command: list[str | Path] = [
        "mksquashfs",
        tree,
        target,
        "-comp",
        "zstd",
        "-Xcompression-level",
        "1",
        "-quiet",
        "-no-progress",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return target


@pytest.mark.parametrize("form", COMPRESSORS)
def test_split_tar(try_unpack: Callable[..., Path], place: Path, form: str) -> None:
    rootfs = compress(tar_of(make_tree(place)), form)
    check_tree(try_unpack(compress(Tar(rootfs=False).done(), form), rootfs) / "rootfs")


@pytest.mark.parametrize("form", COMPRESSORS)
def test_unified_tar(try_unpack: Callable[..., Path], place: Path, form: str) -> None:
    make_tree(place).rename(place / "rootfs")
    (place / "whole").mkdir()
    (place / "rootfs").rename(place / "whole/rootfs")
    (place / "whole/metadata.yaml").write_bytes(METADATA)
    target = try_unpack(compress(tar_of(place / "whole"), form))
    assert (target / "metadata.yaml").read_bytes() == METADATA
    check_tree(target / "rootfs")


def test_split_squashfs(try_unpack: Callable[..., Path], place: Path) -> None:
    check_tree(try_unpack(Tar(rootfs=False).done(), squashfs_of(make_tree(place), place / "sq")) / "rootfs")


def test_unified_squashfs(try_unpack: Callable[..., Path], place: Path) -> None:
    (place / "whole").mkdir()
    make_tree(place).rename(place / "whole/rootfs")
    (place / "whole/metadata.yaml").write_bytes(METADATA)
    target = try_unpack(squashfs_of(place / "whole", place / "sq"))
    assert (target / "metadata.yaml").read_bytes() == METADATA
    check_tree(target / "rootfs")


def test_acls_are_kept(try_unpack: Callable[..., Path], place: Path) -> None:
    tree = make_tree(place)
    entry = "system.posix_acl_access"
    if entry not in os.listxattr(tree / "home"):
        pytest.skip("needs setfacl (apt-get install acl) and a file system with ACLs")
    target = try_unpack(Tar(rootfs=False).done(), tar_of(tree))
    assert os.getxattr(target / "rootfs/home", entry) == os.getxattr(tree / "home", entry)


def test_awkward_image(try_unpack: Callable[..., Path]) -> None:
    """What real images have: JSON metadata at the end, a leading slash, parents without entries, modes of 0644."""
    archive = (
        Tar(metadata=None, rootfs=False)
        .file("/rootfs/etc/leading", b"slash", mtime=0)
        .file("rootfs/no/parents/here", mtime=0)
        .directory("rootfs/etc", mode=0o644)
        .directory("rootfs/odd", mode=0o644)
        .file("rootfs/odd/file")
        .file("rootfs/etc/inittab", b"\n")
        .file("./metadata.yaml", b'{"architecture": "x86_64", "creation_date": 1}', mtime=0)
        .done()
    )
    target = try_unpack(archive)
    assert (target / "rootfs/etc/leading").read_bytes() == b"slash"
    assert (target / "rootfs/no/parents/here").exists()
    assert (target / "rootfs/odd/file").exists()
    assert stat.S_IMODE((target / "rootfs/odd").stat().st_mode) == 0o644
    assert (target / "rootfs/etc/leading").stat().st_mtime == 0


@pytest.fixture
def outside(place: Path) -> Iterator[Path]:
    """Watch a directory of the host that archives try to reach."""
    outside = place / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    (outside / "secret").write_text("secret")
    (outside / "secret").chmod(0o666)
    yield outside
    assert [entry.name for entry in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "secret"


def hostile(outside: Path) -> dict[str, bytes]:
    up = "../" * 12
    return {
        "absolute name": Tar().file(f"{outside}/planted").done(),
        "dotdot": Tar().file(f"rootfs/{up}{outside}/planted").done(),
        "dotdot that leaves the target": Tar().file("../outside/planted").done(),
        "through an absolute link": Tar().symlink("rootfs/l", str(outside)).file("rootfs/l/planted").done(),
        "through a relative link": Tar().symlink("rootfs/l", f"{up}{outside}").file("rootfs/l/planted").done(),
        "through a chain of links": Tar()
        .symlink("rootfs/a", "..")
        .symlink("rootfs/b", "a/..")
        .symlink("rootfs/c", "b/../outside")
        .file("rootfs/c/planted")
        .done(),
        "over a link to a file": Tar().symlink("rootfs/l", f"{outside}/secret").file("rootfs/l", b"overwritten").done(),
        "hard link to the outside": Tar()
        .hard_link("rootfs/l", f"{outside}/secret")
        .file("rootfs/l", b"overwritten")
        .done(),
        "hard link through a link": Tar()
        .symlink("rootfs/d", str(outside))
        .hard_link("rootfs/l", "rootfs/d/secret")
        .done(),
        "deeper than a path can be": Tar().file(f"rootfs/{'deep/' * 3000}x").done(),
        "a name that speaks to terminals": Tar().hard_link("rootfs/\x1b[2J\nE: fine", "/no/such").done(),
        "rootfs is a link": Tar(rootfs=False).symlink("rootfs", str(outside)).file("rootfs/planted").done(),
        "templates is a link": Tar().symlink("templates", str(outside)).file("templates/planted").done(),
        "metadata is a link afterwards": Tar().symlink("metadata.yaml", f"{outside}/secret").done(),
    }


@pytest.mark.parametrize("trick", sorted(hostile(Path("/nowhere"))))
def test_hostile_archive(try_unpack: Callable[..., Path], place: Path, outside: Path, trick: str) -> None:
    """Whatever it does, it is refused with one line, or what it made stays inside and harms nobody."""
    target: Path | None
    refused = ""
    try:
        target = try_unpack(hostile(outside)[trick])
    except BadRequest as error:
        refused = str(error)
        target = None
    if target is None:
        assert refused.isprintable()
        assert not (place / "target").exists() or not list((place / "target").iterdir())
        return
    for name, kind in (("rootfs", stat.S_ISDIR), ("metadata.yaml", stat.S_ISREG)):
        assert kind((target / name).lstat().st_mode)
    for path in target.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b"secret" not in path.read_bytes()


def test_host_files_cannot_be_linked_into_an_image(try_unpack: Callable[..., Path]) -> None:
    archive = Tar().hard_link("rootfs/stolen", "/usr/bin/tar").hard_link("rootfs/shadow", "/etc/shadow").done()
    with pytest.raises(BadRequest, match="Failed unpacking"):
        try_unpack(archive)


def test_devices_are_left_out(try_unpack: Callable[..., Path], place: Path) -> None:
    archive = (
        Tar()
        .entry("rootfs/sda", tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o666)
        .entry("rootfs/mem", tarfile.CHRTYPE, devmajor=1, devminor=1, mode=0o666)
        .file("rootfs/after")
        .done()
    )
    target = try_unpack(archive)
    assert sorted(path.name for path in (target / "rootfs").iterdir()) == ["after"]


def test_set_id_programs_belong_to_the_container(try_unpack: Callable[..., Path]) -> None:
    """Owners on the disk are the container's own; the pool's directory keeps the host's users away from them."""
    target = try_unpack(Tar().file("rootfs/su", mode=0o4755, uid=1000, gid=1000).done())
    program = (target / "rootfs/su").stat()
    assert (program.st_uid, stat.S_IMODE(program.st_mode)) == (1000, 0o4755)


def test_missing_program(try_unpack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    content = compress(Tar().done(), "zst")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match=r"'zstd' is missing .*apt-get install zstd"):
        try_unpack(content)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"not an archive at all", b"\x1f\x8b" + bytes(100), b"\xfd7zXZ\x00" + bytes(100), b"hsqs" + bytes(96)],
)
def test_no_archive(try_unpack: Callable[..., Path], content: bytes) -> None:
    with pytest.raises(BadRequest):
        try_unpack(content)


@pytest.mark.parametrize("form", [*COMPRESSORS, "squashfs"])
def test_truncated(try_unpack: Callable[..., Path], place: Path, form: str) -> None:
    tree = make_tree(place)
    (tree / "noise").write_bytes(os.urandom(1 << 20))
    rootfs = squashfs_of(tree, place / "sq").read_bytes() if form == "squashfs" else compress(tar_of(tree), form)
    with pytest.raises(BadRequest) as refused:
        try_unpack(Tar(rootfs=False).done(), rootfs[: len(rootfs) // 2])
    assert "\n" not in str(refused.value)
    assert not list((place / "target").iterdir())


def test_no_metadata(try_unpack: Callable[..., Path]) -> None:
    with pytest.raises(BadRequest, match=r"no metadata\.yaml"):
        try_unpack(Tar(metadata=None).file("rootfs/x").done())


def test_no_rootfs(try_unpack: Callable[..., Path], place: Path) -> None:
    with pytest.raises(BadRequest, match="no rootfs"):
        try_unpack(Tar(rootfs=False).done())
    assert not list((place / "target").iterdir())


def test_huge_metadata(try_unpack: Callable[..., Path]) -> None:
    with pytest.raises(BadRequest, match="too large"):
        try_unpack(compress(Tar(metadata=bytes(8 << 20)).done(), "zst"))


@pytest.mark.parametrize("form", ["zst", "squashfs"])
def test_decompression_bomb(
    try_unpack: Callable[..., Path], place: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(unarchive, "MAX_UNPACKED", 64 << 20)
    if form == "squashfs":
        (place / "tree").mkdir()
        for index in range(20):
            with open(place / f"tree/{index}", "wb") as file:
                file.write(b"x" * (16 << 20))
        rootfs = squashfs_of(place / "tree", place / "sq").read_bytes()
    else:
        archive = Tar(metadata=None, rootfs=False)
        for index in range(20):
            archive.file(str(index), b"x" * (16 << 20))
        rootfs = compress(archive.done(), form)
    assert len(rootfs) < 1 << 20
    with pytest.raises(BadRequest, match="too large"):
        try_unpack(Tar(rootfs=False).done(), rootfs)
    assert not list((place / "target").iterdir())


@pytest.mark.parametrize("form", ["tar", "gz"])
def test_one_huge_file(try_unpack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(unarchive, "MAX_UNPACKED", 8 << 20)
    with pytest.raises(BadRequest, match="The image is too large"):
        try_unpack(compress(Tar().file("rootfs/big", bytes(12 << 20)).done(), form))


@pytest.mark.parametrize("form", ["gz", "squashfs"])
def test_too_many_files(
    try_unpack: Callable[..., Path], place: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(unarchive, "MAX_MEMBERS", 1000)
    if form == "squashfs":
        (place / "tree").mkdir()
        for index in range(3000):
            (place / f"tree/{index}").touch()
        rootfs = squashfs_of(place / "tree", place / "sq").read_bytes()
    else:
        archive = Tar(metadata=None, rootfs=False)
        for index in range(3000):
            archive.file(str(index), b"")
        rootfs = compress(archive.done(), form)
    with pytest.raises(BadRequest, match="too many files"):
        try_unpack(Tar(rootfs=False).done(), rootfs)


@pytest.mark.parametrize("size", [40, 90])
def test_no_space(try_unpack: Callable[..., Path], place: Path, size: int) -> None:
    """A pool that is full: one line, and nothing is left."""
    target = place / "target"
    target.mkdir()
    subprocess.run(["truncate", "-s", "100M", place / "disk"], check=True)
    subprocess.run(["mkfs.ext4", "-q", place / "disk"], check=True)
    subprocess.run(["mount", "-o", "loop", place / "disk", target], check=True)
    try:
        (target / "lost+found").rmdir()
        with pytest.raises(Internal, match="no space left"):
            try_unpack(compress(Tar().file("rootfs/big", os.urandom(size << 20)).done(), "tar"))
        assert not list(target.iterdir())
    finally:
        subprocess.run(["umount", target], check=True)
