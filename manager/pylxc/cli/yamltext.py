"""YAML as `lxc` shows it: keys in the order of the wire, block style, texts quoted only where they must be."""

from __future__ import annotations

import yaml

from pylxc.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_TEXT_MAPS = frozenset({"config", "devices", "properties"})


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, _data: object) -> bool:
        return True


def _text(dumper: Any, value: str) -> Any:
    if len(value) > 19 and value[10] == "T" and value[4] == value[7] == "-" and (value[-1] == "Z" or value[-6] in "+-"):
        return dumper.represent_scalar("tag:yaml.org,2002:timestamp", value)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else _quote(value))


def _quote(value: str) -> str | None:
    """Double quotes where a plain text would be read as something else, as Go's YAML has it."""
    if value in ("y", "Y", "n", "N"):  # booleans to YAML 1.1, if not to this library
        return '"'
    plain = yaml.SafeLoader("").resolve(yaml.ScalarNode, value, (True, False))  # type: ignore[no-untyped-call]
    return None if plain == "tag:yaml.org,2002:str" and value else '"'


_Dumper.add_representer(str, _text)
_Dumper.add_representer(type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null"))


def dump(data: object) -> str:
    """Return `data` as YAML text with a final line break."""
    text: str = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=1 << 30, allow_unicode=True
    )
    return text.removesuffix("...\n")


def _construct(loader: Any) -> Any:
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _keep_texts(node, inside=False)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _keep_texts(node: Any, *, inside: bool) -> None:
    """Make the numbers and booleans in maps of texts the texts that they were written as: `limits.cpu: 2`.

    Times are texts on the wire everywhere.
    """
    if isinstance(node, yaml.ScalarNode):
        if node.tag == "tag:yaml.org,2002:timestamp" or (inside and node.tag != "tag:yaml.org,2002:null"):
            node.tag = "tag:yaml.org,2002:str"
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _keep_texts(item, inside=inside)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _keep_texts(value, inside=inside or str(key.value) in _TEXT_MAPS)


def load(text: str, what: str) -> dict[str, Any]:
    """Return the mapping in `text`, an empty one for an empty text.

    Raises:
        BadRequest: it is no YAML, or no mapping; the message names `what`.
    """
    try:
        data = _construct(_Loader(text))
    except yaml.YAMLError as error:
        raise BadRequest(f"The {what} is not valid YAML: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise BadRequest(f"The {what} must be a YAML mapping")
    return data
