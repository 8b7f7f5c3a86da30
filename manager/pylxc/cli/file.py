"""`pylxc file`."""

from __future__ import annotations

import errno
import os
import stat

from pylxc.cli.grammar import Args, Command, Option, UsageError
from pylxc.cli.transfer import Transfer
from pylxc.client.files import TREE_EXTENSION
from pylxc.errors import BadRequest, NotFound, PylxcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pylxc.cli.session import Session
    from pylxc.client.files import FileHead, Files
    from pylxc.client.http import Response

_MOST_LINKS = 40


def _target(session: Session, text: str) -> tuple[Files, str]:
    """Return the files of the instance and the path in `[remote:]instance/path`; a final slash stays."""
    name, slash, path = session.name(text).partition("/")
    if not slash or not name:
        raise BadRequest(f"Invalid path {text!r}", hint="it must be INSTANCE/PATH")
    clean = os.path.normpath(f"/{path}")
    clean = clean[1:] if clean.startswith("//") else clean
    is_directory = path.endswith("/") or not path or path.rpartition("/")[2] in {".", ".."}
    return session.client.instances.files(name), clean if not is_directory or clean == "/" else f"{clean}/"


def _mode(args: Args) -> int:
    if not args.mode:
        return -1
    try:
        return int(args.mode, 8)
    except ValueError:
        raise UsageError(f"Flag --mode needs octal permissions, not {args.mode!r}") from None


def _in_snapshot(files: Files, path: str) -> tuple[Files, str] | None:
    """Return what `c01/s0/path` means where c01 has no directory s0 and a snapshot of that name, else None."""
    snapshot, _, rest = path.lstrip("/").partition("/")
    if not snapshot or files.head(f"/{snapshot}") is not None:
        return None
    inside = files.of_snapshot(snapshot)
    return (inside, f"/{rest}") if inside.head("/") is not None else None


def _refuse_snapshot(files: Files, path: str) -> None:
    if _in_snapshot(files, path):
        snapshot = path.lstrip("/").partition("/")[0]
        raise BadRequest(f"{files.name}/{snapshot} is a snapshot: its files cannot be changed")


# -- push ----------------------------------------------------------------------------------------------------------


def _push(session: Session, args: Args) -> None:
    files, target = _target(session, args.words[-1])
    sources = args.words[:-1]
    into_directory = target.endswith("/")
    mode = _mode(args)
    if len(sources) > 1 and not into_directory and not args.recursive:
        raise BadRequest("Missing target directory", hint="put a / at the end of the target")
    if args.recursive and (args.mode or args.uid >= 0 or args.gid >= 0):
        raise BadRequest("Can't supply uid/gid/mode in recursive mode")
    if "-" in sources and into_directory:
        raise BadRequest("Stdin needs the name of a file as target")
    for source in sources:
        if args.recursive and os.path.isdir(source):
            if args.create_dirs:
                _make_directories(files, target, args)
            _push_tree(session, files, source, target)
            continue
        place = os.path.join(target, os.path.basename(source)) if into_directory or args.recursive else target
        if args.create_dirs:
            _make_directories(files, os.path.dirname(place), args)
        _push_file(session, files, source, place, args, mode)


def _push_file(session: Session, files: Files, source: str, place: str, args: Args, mode: int) -> None:
    if os.path.isdir(source):
        raise BadRequest(f"{source} is a directory", hint="pylxc file push --recursive")
    fd = os.dup(0) if source == "-" else os.open(source, os.O_RDONLY)
    try:
        status = os.fstat(fd)
        from_stdin = source == "-"
        uid = args.uid if args.uid >= 0 else 0 if from_stdin else status.st_uid
        gid = args.gid if args.gid >= 0 else 0 if from_stdin else status.st_gid
        if mode < 0:
            mode = 0o644 if from_stdin else status.st_mode & 0o7777
        with Transfer(session, f"Pushing {source} to {place}", status.st_size) as transfer:
            files.write(place, fd, uid=uid, gid=gid, mode=mode, on_bytes=transfer.advance)
    except PylxcError as error:
        if isinstance(error, NotFound):
            _refuse_snapshot(files, place)
        head = None if isinstance(error, NotFound) else files.head(place)
        if head is not None and head.type == "directory":
            raise BadRequest(f"{place} is a directory", hint="put a / at its end to push into it") from error
        raise
    finally:
        os.close(fd)


def _make_directories(files: Files, path: str, args: Args) -> None:
    """Create the directory `path` and those above it that are missing."""
    missing = []
    while path not in {"/", ""}:
        path = path.rstrip("/")
        head = files.head(path)
        if head is not None:
            if head.type == "file":
                raise BadRequest(f"{path} is not a directory")
            break
        missing.append(path)
        path = os.path.dirname(path)
    if missing and path == "/":
        _refuse_snapshot(files, missing[-1])
    for one in reversed(missing):
        files.write(one, b"", kind="directory", mode=0o755, uid=max(args.uid, 0), gid=max(args.gid, 0))


def _push_tree(session: Session, files: Files, source: str, target: str) -> None:
    from pylxc.client import tree

    if target != "/" and files.head(target.rstrip("/")) is None:
        _refuse_snapshot(files, target)
    with Transfer(session, f"Pushing {source} to {target}", 0) as transfer:
        if session.client.has_extension(TREE_EXTENSION):
            files.push_tree(target.rstrip("/") or "/", tree.pack(source), transfer.advance)
            return
        top = os.path.dirname(os.path.abspath(source))
        for directory, names, leaves in os.walk(os.path.abspath(source)):
            _push_one(files, directory, top, target, transfer)
            for name in sorted([*leaves, *(n for n in names if os.path.islink(os.path.join(directory, n)))]):
                _push_one(files, os.path.join(directory, name), top, target, transfer)


def _push_one(files: Files, path: str, top: str, target: str, transfer: Transfer) -> None:
    status = os.lstat(path)
    place = os.path.join(target, os.path.relpath(path, top))
    mode = status.st_mode & 0o7777
    if os.path.islink(path):
        files.write(place, os.fsencode(os.readlink(path)), kind="symlink", uid=status.st_uid, gid=status.st_gid)
    elif os.path.isdir(path):
        files.write(place, b"", kind="directory", uid=status.st_uid, gid=status.st_gid, mode=mode)
    elif os.path.isfile(path):
        with open(path, "rb") as file:
            files.write(
                place, file.fileno(), uid=status.st_uid, gid=status.st_gid, mode=mode, on_bytes=transfer.advance
            )
    else:
        raise BadRequest(f"{path} is neither a file, a directory nor a symbolic link")


# -- pull ----------------------------------------------------------------------------------------------------------


def _pull(session: Session, args: Args) -> None:
    target = args.words[-1]
    sources = args.words[:-1]
    into_directory = target != "-" and (target.endswith("/") or os.path.isdir(target))
    if args.create_dirs and target != "-":
        os.makedirs(
            target if target.endswith("/") or len(sources) > 1 else os.path.dirname(target) or ".", exist_ok=True
        )
        into_directory = into_directory or os.path.isdir(target)
    if len(sources) > 1 and not into_directory and target != "-":
        raise BadRequest("More than one file to download, but target is not a directory")
    for source in sources:
        files, path = _target(session, source)
        path = path.rstrip("/") or "/"
        try:
            head, response = files.open(path)
        except NotFound:
            found = _in_snapshot(files, path)
            if found is None:
                raise
            files, path = found
            head, response = files.open(path)
        place = os.path.join(target, os.path.basename(path)) if into_directory else target
        if head.type == "symlink" and _is_stream(place):
            path, head, response = _follow(files, path, response)
        if head.type == "directory":
            if not args.recursive:
                raise BadRequest("Can't pull a directory without --recursive")
            response.drain()
            _pull_tree(session, files, path, target)
            continue
        _pull_file(session, head, response, path, place)


def _is_stream(place: str) -> bool:
    """Return whether what is pulled is written to what is there: stdout, a pipe, a device."""
    return place == "-" or (os.path.exists(place) and not os.path.isfile(place) and not os.path.isdir(place))


def _follow(files: Files, path: str, response: Response) -> tuple[str, FileHead, Response]:
    """Open what a symbolic link leads to, whose text `response` is; return its path as well."""
    for _ in range(_MOST_LINKS):
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.fsdecode(response.read())))
        head, response = files.open(path)
        if head.type != "symlink":
            return path, head, response
    raise BadRequest(f"{path} leads through too many symbolic links")


def _pull_file(session: Session, head: FileHead, response: Response, path: str, place: str) -> None:
    if place == "-":
        response.into(1)
        return
    if head.type == "symlink":
        _remove(place)
        os.symlink(response.read(), os.fsencode(place))
        return
    with Transfer(session, f"Pulling {path} from the instance", response.length or 0) as transfer:
        fd = _open(place)
        try:
            response.into(fd, transfer.advance)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                # The set-id bits of a guest's file mean nothing good on the host.
                os.fchmod(fd, head.mode & 0o777)
        finally:
            os.close(fd)


def _open(place: str) -> int:
    """Open a file to be written. It may be a link that an earlier pull has made: that leads where the guest says."""
    followed = 0 if place.startswith(("/dev/", "/proc/")) else os.O_NOFOLLOW
    try:
        return os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | followed, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise BadRequest(f"{place} is a symbolic link, which is not followed", hint="remove it first") from error


def _remove(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)


def _pull_tree(session: Session, files: Files, path: str, target: str) -> None:
    from pylxc.client import tree

    if target == "-":
        raise BadRequest("A directory cannot go to stdout")
    os.makedirs(target, exist_ok=True)
    with Transfer(session, f"Pulling {path} from the instance", 0) as transfer:
        if session.client.has_extension(TREE_EXTENSION):
            tree.unpack(files.pull_tree(path).chunks(), target, path, transfer.advance)
            return
        _pull_entries(files, path, os.path.join(target, os.path.basename(path)), transfer)


def _pull_entries(files: Files, path: str, place: str, transfer: Transfer) -> None:
    head, response = files.open(path)
    if head.type == "directory":
        names = files.entries(response)
        if os.path.islink(place):
            raise BadRequest(f"{place} is a symbolic link, it will not be followed")
        os.makedirs(place, mode=0o700, exist_ok=True)
        for name in names:
            if "/" in name or name in {"", ".", ".."}:
                raise BadRequest(f"The server names the invalid file {name!r}")
            _pull_entries(files, f"{path.rstrip('/')}/{name}", os.path.join(place, name), transfer)
        os.chmod(place, head.mode & 0o777)
        return
    _remove(place)
    if head.type == "symlink":
        os.symlink(response.read(), os.fsencode(place))
        return
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        response.into(fd, transfer.advance)
        os.fchmod(fd, head.mode & 0o777)
    finally:
        os.close(fd)


# -- edit, delete --------------------------------------------------------------------------------------------------


def _edit(session: Session, args: Args) -> None:
    from pylxc.cli.edit import run_editor

    files, path = _target(session, args.words[0])
    try:
        if not os.isatty(0):
            files.write(path, os.dup(0))
            return
        before = files.read(path)
    except NotFound:
        _refuse_snapshot(files, path)
        raise
    after = run_editor(before, os.path.splitext(path)[1])
    if after != before:
        files.write(path, after)


def _delete(session: Session, args: Args) -> None:
    for word in args.words:
        files, path = _target(session, word)
        try:
            files.delete(path)
        except NotFound:
            _refuse_snapshot(files, path)
            raise


_PATH = "[<remote>:]<instance>/<path>"
_CREATE = Option("-p", "--create-dirs", help="Create any directories necessary")
_RECURSIVE = Option("-r", "--recursive", help="Recursively transfer files")

COMMANDS = (
    Command(
        "file",
        "Manage files in instances",
        sub=(
            Command(
                "delete",
                "Delete files in instances",
                f"{_PATH} [{_PATH}...]",
                _delete,
                words=(1, None),
                aliases=("rm",),
                complete=("instance/",),
            ),
            Command(
                "edit",
                "Edit files in instances",
                _PATH,
                _edit,
                words=(1, 1),
                complete=("instance/",),
                details="Reads the content from stdin when that is no terminal, and opens $EDITOR otherwise.",
            ),
            Command(
                "pull",
                "Pull files from instances",
                f"{_PATH} [{_PATH}...] <target path>",
                _pull,
                words=(2, None),
                options=(_CREATE, _RECURSIVE),
                examples=(
                    ("file pull c01/etc/hosts .", "Write it to the current directory."),
                    ("file pull c01/etc/hosts -", "Write it to stdout."),
                    ("file pull c01/s0/etc/hosts .", "That of the snapshot s0."),
                ),
                complete=("instance/", "file"),
            ),
            Command(
                "push",
                "Push files into instances",
                f"<source path>... {_PATH}",
                _push,
                words=(2, None),
                options=(
                    _CREATE,
                    Option("--gid", help="Set the file's gid on push", kind="int", default=-1),
                    Option("--mode", help="Set the file's perms on push", kind="value"),
                    _RECURSIVE,
                    Option("--uid", help="Set the file's uid on push", kind="int", default=-1),
                ),
                examples=(
                    ("file push /etc/hosts c01/etc/hosts", 'Push /etc/hosts into the instance "c01".'),
                    ("file push -r site c01/srv/", "Push a directory with all that is in it."),
                ),
                complete=("file", "instance/"),
            ),
        ),
    ),
)
