"""What the site shows of files outside of docs/: documents elsewhere, and every file that a page links to.

MkDocs knows only what is in docs/. A link from there to a scenario or a source leads on GitHub to the file, and on the
site to a page that shows it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
}
"""Documents outside of docs/, and what they are called on the site."""
LANGUAGES = {".py": "python", ".yaml": "yaml", ".proto": "proto", ".csv": "text", "": "text"}
"""Files that are shown as a page of code; any other is there to be downloaded."""

_FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)
_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of docs/, the documents elsewhere, and the files that any of them links to."""
    for name, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / name).read_text(encoding="utf-8")))
    for document in list(files.documentation_pages()):
        for path in _LINK.finditer(_outside_code(document.content_string)):
            _add(files, config, _target(document.src_uri, path[2]))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page, with each link that leaves docs/ led to the page that shows the file."""
    uri = page.file.src_uri

    def led(link: re.Match[str]) -> str:
        there = _place(_target(uri, link[2]))
        return link[1] + posixpath.relpath(there, posixpath.dirname(uri) or ".")

    return "".join(part if part.startswith("```") else _LINK.sub(led, part) for part in _FENCE.split(markdown))


def _outside_code(markdown: str) -> str:
    return _FENCE.sub("", markdown)


def _target(uri: str, link: str) -> str:
    """The path in this repository that a page's link leads to."""
    source = next((name for name, shown in PAGES.items() if shown == uri), f"docs/{uri}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _place(path: str) -> str:
    """Where the site has a file of this repository."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"files/{path}.md" if Path(path).suffix in LANGUAGES else f"files/{path}"


def _add(files: Files, config: MkDocsConfig, path: str) -> None:
    uri, source = _place(path), ROOT / path
    if files.get_file_from_path(uri) or not source.is_file():
        return  # that a link leads nowhere is for MkDocs to say
    if uri.endswith(".md"):
        code = source.read_text(encoding="utf-8")
        shown = f"# {path}\n\n````{LANGUAGES[source.suffix]}\n{code}````\n"
        files.append(File.generated(config, uri, content=f"---\nsearch: {{exclude: true}}\n---\n{shown}"))
    else:
        files.append(File.generated(config, uri, abs_src_path=str(source)))
