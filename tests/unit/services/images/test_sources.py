"""Who may have an image made of what."""

from __future__ import annotations

import pytest

from pylxc.errors import Forbidden
from pylxc.services.events import requestor
from pylxc.services.images import service
from pylxc.wire.images import ImagesPostSource

NAMED: ImagesPostSource = {"type": "image", "protocol": "recipe", "alias": "debian/12"}
TEXT: ImagesPostSource = {**NAMED, "recipe": "extends: debian-12\n"}


@pytest.mark.parametrize("protocol", ["unix", "tls"])
def test_a_recipe_of_ones_own_is_for_callers_on_the_host(protocol: str) -> None:
    token = requestor.set({"username": "x", "protocol": protocol, "address": ""})
    try:
        assert service._pulled(NAMED)["alias"] == "debian/12"
        if protocol == "unix":
            assert service._pulled(TEXT)["recipe"] == TEXT["recipe"]
        else:
            with pytest.raises(Forbidden, match="callers on this host only"):
                service._pulled(TEXT)
    finally:
        requestor.reset(token)
