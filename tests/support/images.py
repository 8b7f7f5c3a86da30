"""Images for tests and bench, built once per machine by pylxc's own recipes and kept in a cache."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path

from pylxc.drivers.image.recipe_file import RecipeBook
from tests.support.daemon import POOL_ONLY, ROOT, Daemon

OWN = Path(__file__).with_name("recipes")
"""Recipes of the tests' own, beside those in images/."""

CACHE = Path(os.environ.get("PYLXC_TEST_CACHE", "/var/tmp/pylxc-test-cache"))


def image_files(recipe: str) -> list[str]:
    """Return the files of the image that `recipe:NAME` builds, to be given to `image import`.

    The first call on a machine builds it (a minute for Debian, from its mirror); a changed recipe is built anew.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    version = RecipeBook(str(OWN), str(ROOT / "images")).find(recipe).version
    target = CACHE / f"{recipe.replace('/', '-')}-{version[:12]}"
    with open(f"{target}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _build(recipe, target)
    # The metadata of a split image comes first.
    return sorted((str(path) for path in target.iterdir()), key=lambda path: "/meta-" not in path)


def _build(recipe: str, target: Path) -> None:
    daemon = Daemon(host_network=True)
    scratch = tempfile.mkdtemp(dir=CACHE)
    shutil.copytree(OWN, f"{daemon.dir}/recipes")
    try:
        daemon.start()
        daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
        daemon.command("init", f"recipe:{recipe}", "built", timeout=900)
        (image,) = json.loads(daemon.command("image", "list", "--format", "json").stdout)
        daemon.command("image", "export", image["fingerprint"], scratch)
        os.rename(scratch, target)
    except AssertionError as error:
        error.add_note(daemon.logs())
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        daemon.close()
