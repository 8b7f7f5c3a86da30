"""`pylxc image import` and `export`: image files from and to the caller's disk."""

from __future__ import annotations

import os
from contextlib import ExitStack

from pylxc.cli.edit import assignments
from pylxc.cli.grammar import Args
from pylxc.cli.new_file import NewFile
from pylxc.cli.transfer import Transfer
from pylxc.errors import BadRequest, Internal

_PARTS = 2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pylxc.cli.session import Session
    from pylxc.client.operations import Operation


def import_image(session: Session, args: Args) -> None:
    """Import the image that the words name."""
    files: list[str] = []
    properties: dict[str, str] = {}
    target = ""
    for word in args.words:
        if "=" in word and not os.path.exists(word):
            properties |= assignments([word])
        elif word.endswith(":") and not os.path.exists(word):
            target = word
        else:
            files.append(word)
    if not files or len(files) > 2:
        raise BadRequest("An image is one file, or one of metadata and one of the root file system")
    session.name(target)
    if files[0].startswith(("http://", "https://")):
        source = {"type": "url", "mode": "pull", "url": files[0]}
        body = {"source": source, "public": args.public, "properties": properties}
        operation = session.wait(session.client.start("POST", "/1.0/images", body), "Importing the image")
    else:
        operation = session.wait(_upload(session, files, properties, public=args.public), "Importing the image")
    fingerprint = str(operation.metadata["fingerprint"])
    print(f"Image imported with fingerprint: {fingerprint}")
    for alias in args.alias:
        session.client.images.point_alias(alias, fingerprint)


def _upload(session: Session, files: list[str], properties: dict[str, str], *, public: bool) -> Operation:
    if os.path.isdir(files[0]):
        return _upload_directory(session, files[0], properties, public=public)
    opened = [(path, os.open(path, os.O_RDONLY)) for path in files]
    try:
        size = sum(os.fstat(fd).st_size for _, fd in opened)
        with Transfer(session, "Transferring image", size) as transfer:
            return session.client.images.upload(opened, public=public, properties=properties, on_bytes=transfer.advance)
    finally:
        for _, fd in opened:
            os.close(fd)


def _upload_directory(session: Session, path: str, properties: dict[str, str], *, public: bool) -> Operation:
    """Pack a directory that holds metadata.yaml and rootfs/ while it is being sent."""
    import subprocess

    if not os.path.exists(os.path.join(path, "metadata.yaml")):
        raise BadRequest(f"{path} is no image: it has no metadata.yaml")
    members = [name for name in ("metadata.yaml", "templates", "rootfs") if os.path.exists(os.path.join(path, name))]
    command = ["tar", "-C", path, "--numeric-owner", "--xattrs", "-cz", "--", *members]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as tar,
        Transfer(session, "Transferring image", 0) as transfer,
    ):
        assert tar.stdout is not None
        name = f"{os.path.basename(os.path.abspath(path))}.tar.gz"
        operation = session.client.images.upload(
            [(name, tar.stdout.fileno())], public=public, properties=properties, on_bytes=transfer.advance
        )
        if tar.wait():
            raise BadRequest(f"tar failed on {path}")
    return operation


def export_image(session: Session, args: Args, fingerprint: str) -> None:
    """Write the image `fingerprint` to the target that the words name."""
    from pylxc.client import multipart

    target = args.words[1] if len(args.words) > 1 else "."
    response = session.client.stream("GET", session.client.images.url(fingerprint, "export"))
    kind = response.headers.get("content-type", "")
    is_split = kind.startswith("multipart/")
    if target == "-" and is_split:
        raise BadRequest("A split image is two files and cannot go to stdout")
    if target == "-":
        response.into(1)
        return
    plain_name = fingerprint if fingerprint.isalnum() else "image"
    with _Files() as files, Transfer(session, "Exporting the image", response.length or 0) as transfer:

        def start(part: str, name: str) -> Callable[[bytes], None]:
            ending = ".root" if part.startswith("rootfs") else ""
            return files.create(_place(target, _file_name(name, plain_name + ending), ending))

        chunks = _counted(response.chunks(), transfer)
        if is_split:
            multipart.decode(multipart.parameter(kind, "boundary"), chunks, start)
        else:
            name = multipart.parameter(response.headers.get("content-disposition", ""), "filename")
            write = files.create(_place(target, _file_name(name, f"{plain_name}.tar.gz")))
            for chunk in chunks:
                write(chunk)
    if not session.quiet:
        print("Image exported successfully!")


def _counted(chunks: Iterable[bytes], transfer: Transfer) -> Iterator[bytes]:
    for chunk in chunks:
        transfer.advance(len(chunk))
        yield chunk


def _file_name(name: str, otherwise: str) -> str:
    """Return what a server calls a file; `otherwise` in place of what is hidden, or no name of a file."""
    last = os.path.basename(name)
    return last if last and last.isprintable() and not last.startswith(".") else otherwise


def _place(target: str, name: str, ending: str | None = None) -> str:
    """Return the file to write: below a directory under the server's name, else the target with an ending, as lxc.

    That is `ending`, or the one of the server's name when it is None.
    """
    if os.path.isdir(target):
        return os.path.join(target, name)
    return target + ("".join(name.partition(".")[1:]) if ending is None else ending)


class _Files(ExitStack):
    """The files that an export writes, which are there when all are whole."""

    def __init__(self) -> None:
        super().__init__()
        self._places: list[str] = []

    def create(self, path: str) -> Callable[[bytes], None]:
        """Create a file and return what writes to it."""
        if len(self._places) == _PARTS or path in self._places:
            raise Internal("The server sent more than an image's metadata and root file system")
        self._places.append(path)
        return self.enter_context(NewFile(path)).write
