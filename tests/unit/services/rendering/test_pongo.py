"""What image templates say, and what pongo2 makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from pylxc.services.rendering import pongo

ENVIRONMENT = pongo.Environment()
CONTEXT: dict[str, Any] = {
    "trigger": "create",
    "path": "/etc/hostname",
    "instance": {"name": "c1", "type": "container", "privileged": "false"},
    "container": {"name": "c1"},
    "config": {"user.a": "one\n", "cloud-init.user-data": "#cloud-config\n{}\n"},
    "devices": {"eth0": {"type": "nic"}},
    "properties": {"default": "#cloud-config\n{}", "items": "3"},
}


def render(source: str) -> str:
    return pongo.render(ENVIRONMENT, source, CONTEXT)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ instance.name }}\n", "c1\n"),
        ("{{ '2026-01-02T03:04:05Z'|date:'2006-01-02_15-04-05 %' }}", "2026-01-02_03-04-05 %"),
        ("{{ container.name }}\n\n", "c1\n\n"),
        ("a\n{% if trigger == 'create' %}\nb\n{% endif %}\nc", "a\n\nb\n\nc"),
        ("a\n  {%- if trigger == 'create' -%}\n  b\n{%- endif %}\nc", "ab\nc"),
        ("[{{- path -}} ]", "[/etc/hostname]"),
        ('{{ config_get("user.a", "x") }}', "one"),
        ('{{ config_get("user.b", properties.default) }}', "#cloud-config\n{}"),
        ('{{ config_get("user.b", properties.missing) }}', ""),
        ('{{ properties.missing|default:"x" }}', "x"),
        ("{{ properties.missing|default:'it'|upper }}", "IT"),
        ("{{ properties.missing|default:instance.name|upper }}", "C1"),
        ('{{ properties.missing|default:config_get("user.a", "x")|upper }}', "ONE"),
        ("{{ properties.missing|default:3|add:4 }}", "7"),
        ('{{ ""|default:"empty" }}', "empty"),
        ("{% if properties.missing %}a{% elif instance.name %}b{% else %}c{% endif %}", "b"),
        ('{% if instance.type == "virtual-machine" %}enp5s0{% else %}eth0{% endif %}', "eth0"),
        ('{% if trigger == "copy" || trigger == "create" && !properties.missing %}yes{% endif %}', "yes"),
        ('{% if trigger <> "copy" and not properties.missing %}yes{% endif %}', "yes"),
        ('{% if trigger != "copy" %}yes{% endif %}', "yes"),
        ('{% if "user.a" in config %}yes{% endif %}', "yes"),
        ('{% ifequal trigger "create" %}yes{% else %}no{% endifequal %}', "yes"),
        ('{% ifnotequal trigger "create" %}yes{% else %}no{% endifnotequal %}', "no"),
        ("{% for key, value in devices %}{{ key }}:{{ value.type }}{% endfor %}", "eth0:nic"),
        ("{% for key in config %}{{ loop.index }}{% endfor %}", "12"),
        ("{{ properties.items }}", "3"),
        ("{{ properties.keys }}|{{ instance.name.upper }}", "|"),
        ("{{ nothing.of.this.is.there }}", ""),
        ("{{ none }}{{ 1.5 }} {{ true }}", "1.500000 True"),
        ("<{{ '<&>' }}>", "<<&>>"),
        ("{# a comment #}{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ('{{ "a b"|split:" "|join:"," }} {{ "x"|ljust:3 }}|', "a,b x  |"),
        ("{{ properties.missing|yesno:'y,n,m' }}{{ 1|yesno }}", "myes"),
    ],
)
def test_renders(source: str, text: str) -> None:
    assert render(source) == text


def test_cloud_init_templates_of_public_images() -> None:
    source = (
        '{%- if config_get("cloud-init.user-data", properties.default) == properties.default -%}\n'
        '{{ config_get("user.user-data", properties.default) }}\n'
        "{%- else -%}\n"
        '{{- config_get("cloud-init.user-data", properties.default) }}\n'
        "{%- endif %}\n"
    )
    assert render(source) == "#cloud-config\n{}\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("a\n{% if %}", "line 2: "),
        ("{{ instance.name", "line 1: "),
        ("{{ instance|nothing }}", "No filter named 'nothing'"),
        ("{{ missing() }}", "calls something other"),
        ('{{ "".format("x") }}', "calls something other"),
        ("{% include '/etc/passwd' %}", "cannot include"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "nested too deeply"),
        ("{{ 1 / 0 }}", "zero"),
        ('{% for a in "xxxx"|center:1000 %}{{ "y"|center:10000 }}{% endfor %}', "more than 4 MiB"),
    ],
)
def test_refuses(source: str, reason: str) -> None:
    with pytest.raises(pongo.RenderError, match=reason) as caught:
        render(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        '{{ "".__class__ }}',
        "{{ config.__class__.__mro__ }}",
        "{{ config_get.__call__.__globals__ }}",
        "{{ config['__class__'] }}",
        "{{ self }}{{ range }}{{ cycler }}{{ lipsum }}{{ namespace }}",
    ],
)
def test_reaches_nothing_of_python(source: str) -> None:
    text = render(source)
    assert "class" not in text
    assert "function" not in text
