"""The templates of an instance's image, applied when it starts. See: LXD doc image-handling.

What is due from a create, a copy or a rename waits in `volatile.apply_template` for the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pylxc.config.instance import INSTANCE
from pylxc.db.models import Config
from pylxc.errors import Internal, PylxcError
from pylxc.runtime import protocol
from pylxc.runtime.files import STALLED_SECONDS
from pylxc.runtime.handle import Runtime
from pylxc.runtime.spawn import Child
from pylxc.runtime.spec import IdMap
from pylxc.services.instances.expand import Record
from pylxc.services.instances.volume_metadata import VolumeMetadata
from pylxc.services.rendering.renderer import Renderer
from pylxc.wire.instances import InstanceMetadata, InstanceTemplate

PENDING = "volatile.apply_template"
"""create, copy or rename, until the next start."""

_ANSWER_SECONDS = STALLED_SECONDS + 5.0


@dataclass(frozen=True, slots=True)
class _Due:
    """A file that is to be made now."""

    trigger: str
    path: str
    template: InstanceTemplate


def deferred(config: Config, trigger: str) -> Config:
    """Return a configuration with the templates of create, copy or rename due; what is due already stays."""
    return {**config, PENDING: config.get(PENDING) or trigger}


class Templates:
    """Applies templates; thread-safe."""

    def __init__(self, runtime: Runtime, renderer: Renderer) -> None:
        self._runtime = runtime
        self._renderer = renderer

    def prepare(self) -> None:
        """Begin to load what rendering needs: an instance is made and may be started at once."""
        self._renderer.prepare()

    def apply(self, found: Record, volume: str, idmap: IdMap | None) -> None:
        """Make the files of the templates that are due at a start; nothing is written when one cannot be rendered.

        Args:
            found: the instance, which does not run.
            volume: the directory of its volume.
            idmap: of the start.

        Raises:
            BadRequest: a template is malformed or missing, or its target is no file.
            Internal: the files cannot be reached.
        """
        with VolumeMetadata(volume) as files:
            due = _due(files.read(), [found.config.get(PENDING, ""), "start"])
            if due:
                self._apply(found, files, due, {"rootfs": f"{volume}/rootfs", "idmap": idmap and asdict(idmap)})

    def _apply(self, found: Record, files: VolumeMetadata, due: Sequence[_Due], place: dict[str, Any]) -> None:
        child = self._runtime.spawn("templates", {**place, "shift": True, "targets": [item.path for item in due]})
        try:
            texts = self._render(found, files, due, _hear(child)["present"])
            protocol.tell(child.socket, {"texts": texts})
            _hear(child)
        except PylxcError as error:
            raise type(error)(f"Failed applying the instance's templates: {error}") from error
        finally:
            child.close()

    def _render(
        self, found: Record, files: VolumeMetadata, due: Sequence[_Due], present: Sequence[bool]
    ) -> list[str | None]:
        """Return what each file shall hold, None for one that is to stay as it is."""
        made = {item.path for item, is_there in zip(due, present, strict=True) if is_there}
        wanted = []
        for number, item in enumerate(due):
            if not item.template["create_only"] or item.path not in made:
                wanted.append(number)
                made.add(item.path)
        texts: list[str | None] = [None] * len(due)
        if wanted:
            jobs = [_job(found, files, due[number]) for number in wanted]
            for number, text in zip(wanted, self._renderer.render(jobs), strict=True):
                texts[number] = text
        return texts


def _due(metadata: InstanceMetadata | None, triggers: Sequence[str]) -> list[_Due]:
    """Return the files to be made for `triggers`, in their order."""
    templates = metadata["templates"] if metadata else {}
    return [
        _Due(trigger, path, template)
        for trigger in triggers
        for path, template in templates.items()
        if trigger and trigger in template["when"]
    ]


def _job(found: Record, files: VolumeMetadata, item: _Due) -> tuple[str, str, dict[str, Any]]:
    name = item.template["template"]
    return name, files.template(name).decode(errors="surrogateescape"), _context(found, item)


def _context(found: Record, item: _Due) -> dict[str, Any]:
    """Return what a template knows."""
    privileged = INSTANCE.is_true(found.expanded_config, "security.privileged")
    instance = {
        "name": found.name,
        "type": found.type,
        "architecture": found.architecture,
        "privileged": str(privileged).lower(),
        "ephemeral": str(found.ephemeral).lower(),
    }
    return {
        "trigger": item.trigger,
        "path": item.path,
        "instance": instance,
        "container": instance,
        "config": found.expanded_config,
        "devices": found.expanded_devices,
        "properties": item.template["properties"],
    }


def _hear(child: Child) -> dict[str, Any]:
    try:
        received = child.receive(_ANSWER_SECONDS)
    except TimeoutError:
        child.kill()
        received = None
    if received is None:
        raise Internal("the instance's file system does not answer")
    if "error" in received[0]:
        raise protocol.rebuild_error(received[0])
    return received[0]
