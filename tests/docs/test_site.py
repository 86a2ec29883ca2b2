"""The documentation site builds without warnings and loads nothing from another host."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from helpers.paths import CHECKOUT

pytestmark = pytest.mark.extra

# Names, not addresses that a browser loads; and what the theme asks a repository's host for, which
# only a site with repo_url does.
NOT_LOADED = ("http://www.w3.org/", "https://api.github.com/", "https://${")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(module, reason="needs the extra 'docs': pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Addresses(HTMLParser):
    """Addresses of a page: those that a browser loads, and those of links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "srcset", "poster", "data"} or (tag, name) == ("link", "href"):
                self.loaded.append(value or "")
            elif name == "style":
                self.loaded += css_addresses(value or "")
            elif (tag, name) == ("a", "href"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "style":
            self.loaded += css_addresses(data)
        elif self.cdata_elem == "script":
            self.loaded += js_addresses(data)


def css_addresses(text: str) -> list[str]:
    return re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)", text)


def js_addresses(text: str) -> list[str]:
    """String literals that begin like an address of another host."""
    literals = re.findall(r"[\"'`](https?://[^\"'`\s]+|//[\w-]+\.[^\"'`\s]+)", text)
    return [literal for literal in literals if not literal.startswith(NOT_LOADED)]


def is_remote(address: str) -> bool:
    return bool(urlsplit(address).netloc)


def test_site_loads_nothing_from_another_host(site: Path) -> None:
    loaded = {}
    for file in site.rglob("*"):
        if file.suffix == ".html":
            loaded[file] = Addresses(file.read_text()).loaded
        elif file.suffix == ".css":
            loaded[file] = css_addresses(file.read_text())
        elif file.suffix == ".js" and file.parent.name != "search":  # the index is the pages' text
            loaded[file] = js_addresses(file.read_text())
    assert any(loaded.values())
    assert [(f.name, a) for f, found in loaded.items() for a in found if is_remote(a)] == []


def test_site_has_every_file_that_it_links_to(site: Path) -> None:
    missing = []
    for file in site.rglob("*.html"):
        if file.name == "404.html":  # its addresses begin at the root of the server
            continue
        page = Addresses(file.read_text())
        for address in page.loaded + page.links:
            url = urlsplit(address)
            if not (url.scheme or url.netloc) and not (file.parent / unquote(url.path)).exists():
                missing.append((file.relative_to(site).as_posix(), address))
    assert missing == []


def test_site_has_a_page_per_module(site: Path) -> None:
    package = CHECKOUT / "src/ganmnist"
    names = {f.relative_to(package).with_suffix("") for f in package.rglob("[!_]*.py")}
    pages = {
        f.relative_to(site / "reference/api/ganmnist").with_suffix("")
        for f in (site / "reference/api/ganmnist").rglob("*.html")
        if f.stem != "index"
    }
    assert names == pages
    assert "batch_size" in (site / "reference/settings.html").read_text()
    assert "generated: " not in (site / "reference/configuration.html").read_text()
