"""A headless browser, where the machine has one: what a page says to its console, and what its scripts made of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WITHOUT = "no chromium or google-chrome on this machine"


class Shown(NamedTuple):
    """`console`: what the page's scripts, and the browser about the page, said. `dom`: the page as it stands then."""

    console: list[str]
    dom: str


def show(page: Path, profile: Path, query: str = "") -> Shown:
    """The page, as the browser has it when its scripts are done; `query` is what its address has behind a `?`."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--virtual-time-budget=20000",
            "--dump-dom",
            f"{page.as_uri()}?{query}" if query else page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return Shown(re.findall(r":CONSOLE[:(].*", done.stderr), done.stdout)
