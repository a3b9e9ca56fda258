"""Reading of HTML pages: by a parser, and laid out in a real browser without a screen."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

_OPEN = {"meta", "br", "img", "wbr"}
"""Elements without an end."""
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class PageReader(HTMLParser):
    """Reads a page: its text, tables and pictures; fails where an element is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _OPEN:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def browser() -> str:
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip(f"there is no browser among {', '.join(_BROWSERS)}, so no page is drawn")
    return found


def dump(page: Path, width: int) -> dict[str, Any]:
    """Lay a page out in a frame of a width, and return what its script measures."""
    measure = """<script>addEventListener("load", () => parent.postMessage({
      scroll: document.documentElement.scrollWidth, width: innerWidth,
      broken: [...document.images].filter(i => i.naturalWidth != 240).length,
      images: document.images.length, loaded: performance.getEntriesByType("resource")
        .filter(entry => !entry.name.startsWith("data:")).length,
      tall: [...document.images].filter(i => Math.abs(i.height / i.width - 4/3) > 0.05).length,
      outside: [...document.querySelectorAll("section > *, section svg, .tile, figcaption, dd")]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1).length,
    }, "*"))</script></body>"""
    measured, frame = page.with_suffix(".measured.html"), page.with_suffix(".frame.html")
    measured.write_text(page.read_text().replace("</body>", measure))
    frame.write_text(
        f'<iframe src="{measured.name}" style="width:{width}px;height:900px;border:0"></iframe>'
        '<script>addEventListener("message", event => '
        "{document.body.textContent = `RESULT${JSON.stringify(event.data)}END`})</script>"
    )
    shown = run_browser("--dump-dom", "--virtual-time-budget=10000", frame.as_uri())
    return dict(json.loads(re.findall("RESULT(.*)END", shown.decode())[-1]))


def run_browser(*arguments: str) -> bytes:
    words = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command = [*words, *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout
