"""`lxc config metadata` and `lxc config template`."""

from __future__ import annotations

import json

import yaml

from tests.clients.conftest import Lxc


def test_metadata(lxc: Lxc, stopped: str) -> None:
    shown = yaml.safe_load(lxc("config", "metadata", "show", stopped).stdout)
    assert shown["architecture"] == "x86_64"
    assert shown["templates"]["/etc/hostname"]["create_only"] is False
    shown["properties"]["colour"] = "red"
    shown["templates"]["/etc/motd"] = {"when": ["start"], "create_only": True, "template": "motd", "properties": {}}
    lxc("config", "metadata", "edit", stopped, input=yaml.safe_dump(shown))
    assert yaml.safe_load(lxc("config", "metadata", "show", stopped).stdout) == shown
    url = f"/1.0/instances/{stopped}/metadata"
    lxc("query", "-X", "PATCH", "-d", '{"properties": {"shape": "round"}}', url)
    properties = json.loads(lxc("query", url).stdout)["properties"]
    assert (properties["colour"], properties["shape"]) == ("red", "round")


def test_templates(lxc: Lxc, stopped: str) -> None:
    lxc("config", "template", "create", stopped, "motd.tpl")
    lxc("config", "template", "edit", stopped, "motd.tpl", input='{{ config_get("user.a", "b")|default:"c" }}\n')
    assert lxc("config", "template", "show", stopped, "motd.tpl").stdout == (
        '{{ config_get("user.a", "b")|default:"c" }}\n'
    )
    assert "motd.tpl" in lxc("config", "template", "list", stopped, "--format", "csv").stdout.split()
    metadata = {"templates": {"/etc/motd": {"when": ["create"], "template": "motd.tpl"}}}
    lxc("query", "-X", "PATCH", "-d", json.dumps(metadata), f"/1.0/instances/{stopped}/metadata")
    lxc("start", stopped)
    assert lxc("exec", stopped, "--", "cat", "/etc/motd", "/etc/hostname").stdout == f"b\n{stopped}\n"
    lxc("config", "template", "delete", stopped, "motd.tpl")
    assert lxc("config", "template", "show", stopped, "motd.tpl", check=False).returncode == 1
    assert lxc("config", "template", "delete", stopped, "motd.tpl", check=False).returncode == 1
