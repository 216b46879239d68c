"""A page in headless Chromium: what its console says, what it asks the network for, how wide it becomes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is absent")
PHONE, DESKTOP = 390, 1280
QUIET = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync",
         "--window-size=1400,1000",
         "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"]  # fmt: skip
# A window is at least 500 pixels wide; a frame has any width, and counts as the screen of what is in it.
FRAME = '<iframe width="{}" height="800" src="{}"></iframe>'
MEASURE = """<title>none</title><script>onload = () => document.title = 'widths ' + [...document.querySelectorAll('iframe')]
.map(frame => frame.contentDocument.documentElement.scrollWidth)</script>"""


@dataclass(frozen=True)
class Seen:
    """What a browser found."""

    console: list[str]
    requests: list[str]  # that the page made of other places
    widths: list[tuple[int, int]]  # of the content of each page in CSS pixels, on a phone and on a desktop


def look(pages: Sequence[Path], folder: Path) -> Seen:
    """Open pages on a phone and a desktop. What the browser asks for itself (updates, accounts) has no origin, and is left
    out."""
    assert CHROMIUM
    frames, log = folder / "frames.html", folder / "net.json"
    shown = [FRAME.format(width, page.resolve().as_uri()) for page in pages for width in (PHONE, DESKTOP)]
    frames.write_text("".join([*shown, MEASURE]), encoding="utf-8")
    command = [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", f"--log-net-log={log}",
               "--allow-file-access-from-files", "--dump-dom", frames.as_uri()]  # fmt: skip
    made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    asked = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    urls = [of["url"] for of in asked if "url" in of and of.get("initiator", "not an origin") != "not an origin"]
    found = re.search(r"<title>widths ([\d,]+)", made.stdout)
    assert found, made.stdout[:300]
    widths = list(map(int, found[1].split(",")))
    console = [line for line in made.stderr.splitlines() if "CONSOLE" in line]
    outside = [url for url in urls if not url.startswith(("file:", "data:"))]
    return Seen(console, outside, list(zip(widths[::2], widths[1::2], strict=True)))
