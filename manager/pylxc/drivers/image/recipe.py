"""Images built on this host by mmdebstrap, as a recipe says: the remote `recipe:`.

The build runs in mount, pid, ipc and uts namespaces of its own and dies with the daemon's thread that watches it, so
that neither a cancel nor a crash leaves a mount or a process behind; its tree is in memory where there is enough.
"""

from __future__ import annotations

import io
import json
import logging
import os
import platform
import re
import select
import shlex
import shutil
import tarfile
import time
from collections.abc import Mapping
from typing import Any

import yaml

from pylxc.drivers.image import archives, proxies
from pylxc.drivers.image.apt import Source, host_options, host_sources
from pylxc.drivers.image.base import Area, Cancelled, Host, Offer, Progress, wire_image
from pylxc.drivers.image.recipe_file import Recipe, RecipeBook
from pylxc.errors import BadRequest, Internal, NotSupported
from pylxc.kernel import command

log = logging.getLogger(__name__)

_DEBIAN_ARCHITECTURES = {
    "x86_64": "amd64",
    "i686": "i386",
    "aarch64": "arm64",
    "armv7l": "armhf",
    "ppc64le": "ppc64el",
    "mips64": "mips64el",
}
_MERGED_USR = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"
"""Merges /usr before packages come, so that none has to be installed (with all of Perl) to do it afterwards."""
_MEMORY_NEEDED = 2 << 30
"""Bytes of memory that must be free for the tree to be built there; a Debian tree takes about 0.7 GB while built."""
_CHECK_MILLISECONDS = 250
_LAST_LINES = 30
_HOOK = re.compile("/(customize|afterwards)$")

# $1 scratch directory, $2 size of the tree's tmpfs or 0; then mmdebstrap's arguments, "--", its sources.
_BUILD = """
set -eu
scratch=$1 size=$2
shift 2
# The copy of the mount of a loop device, a storage pool's perhaps, would hold it when the host has let go of it.
while read -r device place _; do
    case "$device:$scratch" in
        /dev/loop*:"$place"/*) ;;
        /dev/loop*) [ "$place" = / ] || umount --lazy "$place" || true ;;
    esac
done < /proc/mounts
mkdir "$scratch/tree"
if [ "$size" != 0 ]; then mount -t tmpfs -o "mode=0755,size=$size" tmpfs "$scratch/tree"; fi
mmdebstrap "$@"
if [ -x "$scratch/afterwards" ]; then "$scratch/afterwards" "$scratch/tree/rootfs"; fi
echo "I: packing the image..." >&2
mksquashfs "$scratch/tree/rootfs" "$scratch/rootfs.squashfs" -comp zstd -Xcompression-level 6 -b 256K \\
    -noappend -no-progress -quiet >/dev/null
"""

# Run outside the chroot with the tree as $1; everything that could follow a link of the tree runs inside it.
_CUSTOMIZE = """#!/bin/sh
set -eu
tree=$1
if [ -x "$tree/bin/tar" ]; then tar=/bin/tar; else tar="/bin/busybox tar"; fi
if [ -x "$tree/bin/sh" ]; then sh=/bin/sh; else sh="/bin/busybox sh"; fi
tar --create --owner=0 --group=0 --file=- --directory={overlay} . | chroot "$tree" $tar -x -p -f - -C /
chroot "$tree" $sh -eu < {commands}
"""

# The sources and options of the build are the host's business, those of the image are its own.
_TIDY = "rm -f /etc/apt/sources.list /etc/apt/apt.conf.d/99mmdebstrap /etc/dpkg/dpkg.cfg.d/99mmdebstrap"


class RecipeDriver:
    """Builds images from recipes.

    Args:
        host: says where recipe files are, and has the proxy settings.
    """

    def __init__(self, host: Host) -> None:
        self._book = RecipeBook(*host.recipes)
        self._setting = host.setting

    def find(self, source: Mapping[str, str], check_cancelled: Cancelled, *, fresh: bool) -> Offer:
        """Return what a recipe makes: the one called `source["alias"]`, or the text `source["recipe"]` so called.

        See `ImageDriver`.
        """
        alias, text = source.get("alias") or "", source.get("recipe") or ""
        if text:
            return self._offer(self._book.read(alias or "recipe", text), {"alias": alias, "recipe": text})
        if not alias:
            raise BadRequest("A recipe is asked for by its alias", hint="pylxc image list recipe:")
        return self._offer(self._book.find(alias))

    def listing(self, source: Mapping[str, str]) -> bytes:
        """Return what the recipes make that can be built on this host, by name; see `ImageDriver`."""
        own = platform.machine()
        fitting = [recipe for recipe in self._book.all() if not recipe.architectures or own in recipe.architectures]
        return json.dumps([self._offer(recipe).image for recipe in fitting]).encode()

    def fetch(self, offer: Offer, area: Area, progress: Progress, check_cancelled: Cancelled) -> None:
        """Build the image; see `ImageDriver`."""
        recipe: Recipe = offer.hidden
        for program in ("mmdebstrap", "mksquashfs"):
            if shutil.which(program) is None:
                raise command.missing(program)
        sources = archives.sources(recipe, _debian_architecture(), host_sources())
        arguments = _prepare(recipe, sources, area.directory)
        env = {"TMPDIR": area.directory, **proxies.environment(self._setting)}
        _build(recipe.name, arguments, env, progress, check_cancelled)
        _write_metadata(recipe, f"{area.directory}/metadata.tar.xz")
        area.add("metadata", f"{area.directory}/metadata.tar.xz")
        area.add("rootfs", f"{area.directory}/rootfs.squashfs")

    def _offer(self, recipe: Recipe, kept: Mapping[str, str] | None = None) -> Offer:
        own = platform.machine()
        if recipe.architectures and own not in recipe.architectures:
            raise NotSupported(f"The recipe {recipe.name!r} cannot be built on {own}")
        return Offer(
            source={"protocol": "recipe", "version": recipe.version, **(kept or {"alias": recipe.aliases[0]})},
            version=recipe.version,
            image=wire_image(
                architecture=own,
                aliases=[{"name": name, "description": ""} for name in recipe.aliases],
                properties=_properties(recipe),
            ),
            hidden=recipe,
        )


def _properties(recipe: Recipe, serial: str = "") -> dict[str, str]:
    """Return the properties that the public servers' images have; an image that is not built yet has no serial."""
    architecture = _debian_architecture()
    variant = "" if recipe.variant == "default" else f" ({recipe.variant})"
    properties = {
        "architecture": architecture,
        "description": f"{recipe.description} {architecture}{variant}" + (f" ({serial})" if serial else ""),
        "os": recipe.os,
        "release": recipe.release,
        "variant": recipe.variant,
    }
    if serial:
        name = f"{recipe.os.lower()}-{recipe.release}-{architecture}-{recipe.variant}-{serial}"
        properties |= {"name": name, "serial": serial}
    return properties | recipe.properties


def _debian_architecture() -> str:
    return _DEBIAN_ARCHITECTURES.get(platform.machine(), platform.machine())


def _prepare(recipe: Recipe, sources: list[Source], scratch: str) -> list[str]:
    """Write what the build needs into `scratch` and return mmdebstrap's arguments."""
    overlay = f"{scratch}/overlay"
    os.mkdir(overlay, 0o755)
    has_apt = recipe.base != "extract"
    files = {path: (file.content, file.mode) for path, file in recipe.files.items()}
    if has_apt:
        files[f"/etc/apt/sources.list.d/{recipe.archive}.sources"] = (archives.deb822(sources), 0o644)
        if rules := _path_rules(recipe):
            files["/etc/dpkg/dpkg.cfg.d/small"] = ("".join(f"{rule}\n" for rule in rules), 0o644)
    for path, (content, mode) in files.items():
        os.makedirs(os.path.dirname(overlay + path), mode=0o755, exist_ok=True)
        with open(overlay + path, "w", encoding="utf-8") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
    with open(f"{scratch}/commands", "w", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in (*recipe.commands, *([_TIDY] if has_apt else []))))
    # mmdebstrap runs its hooks only where it has installed packages; it mounts /proc and /dev for them.
    hook = f"{scratch}/{'customize' if has_apt else 'afterwards'}"
    with open(hook, "w", encoding="utf-8") as file:
        file.write(_CUSTOMIZE.format(overlay=shlex.quote(overlay), commands=shlex.quote(f"{scratch}/commands")))
        os.fchmod(file.fileno(), 0o755)
    options = [f"--aptopt={option}" for option in host_options()]
    options += [f"--dpkgopt={rule}" for rule in (*_path_rules(recipe), "force-unsafe-io")]
    packages = [f"--include={','.join(recipe.packages)}"] if recipe.packages else []
    return [
        "--mode=unshare",
        f"--variant={recipe.base}",
        "--format=directory",
        f"--architectures={_debian_architecture()}",
        *options,
        *packages,
        *([f"--customize-hook={hook}"] if has_apt else []),
        *([f"--hook-dir={_MERGED_USR}"] if has_apt and os.path.isdir(_MERGED_USR) else []),
        recipe.suites[0],
        f"{scratch}/tree/rootfs",
        *(archives.one_line(source) for source in sources),
    ]


def _path_rules(recipe: Recipe) -> list[str]:
    return [f"path-exclude={path}" for path in recipe.exclude] + [f"path-include={path}" for path in recipe.include]


def _build(
    name: str, arguments: list[str], env: dict[str, str], progress: Progress, check_cancelled: Cancelled
) -> None:
    free = _free_memory()
    size = str(free // 2) if free >= _MEMORY_NEEDED else "0"
    # The build ends when unshare does, which ends when this thread does, however that comes about.
    argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    argv += ["--ipc", "--uts", "sh", "-c", _BUILD, "build", env["TMPDIR"], size, *arguments]
    output, output_write = os.pipe()
    process = command.start(argv, stdout=output_write, stderr=output_write, env=env)
    os.close(output_write)
    with open(output, "rb", buffering=0) as pipe:
        try:
            lines = _follow(pipe, progress, check_cancelled)
        except BaseException:
            process.kill()
            while pipe.read(1 << 16):
                pass  # its descendants hold the pipe until the last of them is gone; then the scratch space may go
            raise
        finally:
            process.wait()
    if process.returncode:
        log.warning("Building %s failed:\n%s", name, "\n".join(lines))
        raise Internal(f"Failed building the recipe {name!r}: {_reason(lines)}")


def _follow(pipe: io.FileIO, progress: Progress, check_cancelled: Cancelled) -> list[str]:
    """Read what the build says until its end; return the last lines."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    lines: list[str] = []
    rest = ""
    while True:
        check_cancelled()
        if not poll.poll(_CHECK_MILLISECONDS):
            continue
        chunk = pipe.read(1 << 16)
        if not chunk:
            return lines
        *complete, rest = (rest + chunk.decode(errors="replace")).split("\n")
        for line in complete:
            if line.startswith("I: ") and line.endswith("..."):
                progress("build_progress", line[3:-3].capitalize())
        lines = [*lines, *complete][-_LAST_LINES:]


def _reason(lines: list[str]) -> str:
    said = [" ".join(line.split()) for line in lines if line.strip()]
    for index, line in enumerate(said):
        if line.startswith("E: ") and _HOOK.search(line) and index:
            return f"a command of it failed: {said[index - 1][:300]}"
        if line.startswith(("E: ", "FATAL ERROR", "dpkg: error")):
            return line.removeprefix("E: ")[:300]
    return said[-1][:300] if said else "it was ended"


def _free_memory() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _write_metadata(recipe: Recipe, path: str) -> None:
    built_at = int(time.time())
    serial = time.strftime("%Y%m%d_%H:%M", time.gmtime(built_at))
    templates: dict[str, dict[str, Any]] = {}
    contents: dict[str, str] = {}
    for target, template in recipe.templates.items():
        file = f"{target.strip('/').replace('/', '-')}.tpl"
        contents[f"templates/{file}"] = template.content
        templates[target] = {
            "when": list(template.when),
            "create_only": template.create_only,
            "template": file,
            "properties": template.properties,
        }
    metadata = {
        "architecture": platform.machine(),
        "creation_date": built_at,
        "properties": _properties(recipe, serial),
        "templates": templates,
    }
    contents["metadata.yaml"] = yaml.safe_dump(metadata, sort_keys=False)
    with tarfile.open(path, "w:xz") as archive:
        directory = tarfile.TarInfo("templates")
        directory.type, directory.mode, directory.mtime = tarfile.DIRTYPE, 0o755, built_at
        archive.addfile(directory)
        for name in sorted(contents):
            data = contents[name].encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o644, built_at
            archive.addfile(entry, io.BytesIO(data))
