"""The documents as a site: it is built without a complaint, and what is built needs no network."""

from __future__ import annotations

import html.parser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pictures.browser import BROWSER, WITHOUT, show
from tests.test_house import ROOT

LOADING = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "image": ("href", "xlink:href"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
"""What a browser fetches of its own accord, by tag and attribute; a link is fetched when somebody follows it."""
_IN_STYLES = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


class Fetched(html.parser.HTMLParser):
    """Collects what a page fetches from elsewhere, in its tags and in its styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elsewhere: list[str] = _IN_STYLES.findall(page)
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in LOADING.get(tag, ()) and re.search(r"(?:^|[\s,])(?:\w+:)?//", value or ""):
                self.elsewhere.append(value or "")


def fetched_from_elsewhere(site: Path) -> Iterator[str]:
    """What the pages and styles of a site fetch from other places than the site."""
    for page in sorted(site.rglob("*.html")):
        yield from (f"{page.relative_to(site)}: {url}" for url in Fetched(page.read_text(encoding="utf-8")).elsewhere)
    for style in sorted(site.rglob("*.css")):
        urls = _IN_STYLES.findall(style.read_text(encoding="utf-8"))
        yield from (f"{style.relative_to(site)}: {url}" for url in urls)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, elsewhere; a link that leads nowhere, or a page outside of the nav, fails."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_has_every_document(site: Path):
    """Each page of docs/ is one of the site, and so are README, CONTRIBUTING and CHANGELOG."""
    documents = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    for document in documents:
        assert (site / document.parent / document.name.replace("README", "index")).is_file()
    fronts = {"index.html": "Rehearse a cluster", "contributing.html": "The loop", "changelog.html": "Unreleased"}
    for page, words in fronts.items():
        assert words in (site / page).read_text(encoding="utf-8")


def test_a_link_to_a_file_leads_to_a_page_that_shows_it(site: Path):
    """A scenario that a document links to can be read on the site."""
    assert 'href="files/scenarios/rack-timeout.yaml.html"' in (site / "index.html").read_text(encoding="utf-8")
    assert "restart_after_s" in (site / "files/scenarios/rack-timeout.yaml.html").read_text(encoding="utf-8")


def test_the_site_fetches_nothing_from_a_network(site: Path):
    """No script, style, picture or font comes from elsewhere, and no diagram, whose script the theme would fetch."""
    assert list(fetched_from_elsewhere(site)) == []
    assert not [page for page in site.rglob("*.html") if 'class="mermaid"' in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize(
    "planted",
    [
        '<script src="https://example.org/a.js"></script>',
        '<link rel="stylesheet" href="//example.org/a.css">',
        '<img srcset="a.png 1x, https://example.org/b.png 2x">',
        "<style>@font-face { src: url('https://example.org/a.woff2') }</style>",
        '<p style="background: url(http://example.org/a.png)"></p>',
    ],
)
def test_what_a_planted_page_fetches_is_seen(planted: str, tmp_path: Path):
    """The test of the network sees what it claims to see."""
    (tmp_path / "page.html").write_text(f'<a href="https://example.org">a link</a> {planted}')
    assert len(list(fetched_from_elsewhere(tmp_path))) == 1


@pytest.mark.skipif(BROWSER is None, reason=WITHOUT)
def test_the_search_works_in_a_page_that_is_a_file(site: Path, tmp_path: Path):
    """Without a server and without a network the search finds pages, and no script complains."""
    shown = show(site / "index.html", tmp_path / "profile", query="q=bertier")
    assert shown.console == []
    assert "detectors.html" in "".join(re.findall(r'<a href="([^"]+)" class="md-search-result__link"', shown.dom))
