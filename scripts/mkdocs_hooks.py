"""MkDocs hooks: generated text, and links from docs/ to other files of the repository.

MkDocs calls the functions named `on_...` (mkdocs.yml, `hooks`). They find the modules, programs and
configuration files on disk: a moved module needs no edit here.
"""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element, SubElement

import yaml
from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from markdown.util import AtomicString
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
DOCS = ROOT / "docs"
SRC = ROOT / "src"
PACKAGE = SRC / "ganmnist"
API = "reference/api/"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the modules to the navigation, and the extension for links."""
    index = f"{API}index.md"
    config.nav = _replace(config.nav, index, [index, *api_nav(PACKAGE)])
    config.markdown_extensions.append(RepositoryLinks())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page per module, and the notebook as a page."""
    pages = {page_of(m): f"---\ntitle: {m}\n---\n\n::: {m}\n" for m in modules(PACKAGE)}
    pages["notebook.md"] = notebook_page(DOCS / "notebook.ipynb")
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replaces `<!-- generated: NAME -->` by the text of the function NAME."""
    functions = {f.__name__: f for f in (help_texts, configuration_files, module_list)}
    return re.sub(r"<!-- generated: (\w+) -->", lambda m: functions[m[1]](), markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Removes the addresses of a CDN from the theme's script.

    The theme loads two scripts from there: Mermaid where a page has a diagram, and a polyfill for
    browsers from before 2020. No page has a diagram.
    """
    for script in Path(config.site_dir, "assets/javascripts").glob("bundle.*"):
        if script.suffix == ".map":
            script.unlink()
        else:
            text = script.read_text(encoding="utf-8")
            script.write_text(text.replace("https://unpkg.com/", ""), encoding="utf-8")


def modules(package: Path) -> Iterator[str]:
    """The dotted names of the public modules of a package, itself first."""
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not any(part.startswith("_") for part in parts):
            yield ".".join(parts)


def page_of(module: str) -> str:
    """The page of a module. A package has the index page of its folder."""
    name = module.replace(".", "/")
    return f"{API}{name}/index.md" if (SRC / name).is_dir() else f"{API}{name}.md"


def api_nav(package: Path) -> list[object]:
    """The navigation of a package: its own page, its modules, then its subpackages."""
    name = ".".join(package.relative_to(SRC).parts)
    single: list[object] = [{name: page_of(name)} if package == PACKAGE else page_of(name)]
    nested: list[object] = []
    for module in modules(PACKAGE):
        parent, _, label = module.rpartition(".")
        if parent == name and (package / label).is_dir():
            nested.append({label: api_nav(package / label)})
        elif parent == name:
            single.append({label: page_of(module)})
    return single + nested


def module_list() -> str:
    """Every module with the first line of its docstring."""
    lines = ["| module | content |", "|---|---|"]
    for module in modules(PACKAGE):
        path = SRC / module.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        first = doc.partition("\n")[0].replace("|", "\\|")
        lines.append(f"| [`{module}`]({page_of(module).removeprefix(API)}) | {first} |")
    return "\n".join(lines)


def help_texts() -> str:
    """The output of --help of every program that has a help text in conf/hydra/help/."""
    lines = []
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    for file in sorted(CONF.glob("hydra/help/*.yaml"), key=lambda f: (f.stem != "train", f.stem)):
        program = yaml.safe_load(file.read_text(encoding="utf-8"))["app_name"]
        command = [sys.executable, "-m", *program.split(), "--help"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PluginError(f"{program} --help failed:\n{done.stderr}")
        lines += [f"## {program}", "", "```text", done.stdout.strip(), "```", ""]
    return "\n".join(lines)


def configuration_files() -> str:
    """The files of conf/, a section per group."""
    groups: dict[str, list[Path]] = {}
    for file in sorted(CONF.rglob("*.yaml")):
        groups.setdefault(file.parent.relative_to(CONF).as_posix(), []).append(file)
    lines = []
    for group, files in sorted(groups.items()):
        if group.startswith("hydra"):
            continue
        lines += [f"## {'Programs and defaults' if group == '.' else group}", ""]
        for file in files:
            title = file.name if group == "." else f"{group}={file.stem}"
            text = file.read_text(encoding="utf-8").strip()
            block = textwrap.indent(f"```yaml\n{text}\n```", "    ")
            lines += [f'??? abstract "{title}"', "", block, ""]
    return "\n".join(lines)


def notebook_page(file: Path) -> str:
    """A notebook as Markdown, without outputs."""
    cells = []
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        cells.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    cells.append(f'<a href="{file.name}" download>Download this notebook</a>')
    return "\n\n".join(cells) + "\n"


class RepositoryLinks(Extension):
    """Links to files that are not pages of the site.

    The pages are also read in the repository, so they link to README.md, src/, conf/ and tests/.
    Such a link becomes the path of the file in the site. A link to a notebook becomes a link to its
    page. MkDocs warns of every other link without a page, and a strict build then fails.
    """

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        # After the inline patterns (20), before MkDocs checks the links (0).
        md.treeprocessors.register(RepositoryLinksProcessor(md), "repository_links", 1)


class RepositoryLinksProcessor(Treeprocessor):
    def run(self, root: Element) -> None:
        if "relpath" not in self.md.treeprocessors:
            return  # a docstring: it has no folder in docs/
        page = self.md.treeprocessors["relpath"].file.src_uri
        for link in root.iter("a"):
            url = urlsplit(link.get("href", ""))
            if url.scheme or url.netloc or not url.path or url.path.startswith("/"):
                continue
            target = Path(os.path.normpath(DOCS / page / ".." / unquote(url.path)))
            if target.is_relative_to(DOCS) and not target.is_dir():
                if target.suffix == ".ipynb":
                    link.set("href", url._replace(path=url.path[: -len("ipynb")] + "md").geturl())
            elif target.is_relative_to(ROOT) and target.exists():
                _to_path(link, target.relative_to(ROOT).as_posix())


def _to_path(link: Element, path: str) -> None:
    """Replaces a link by the path of its file, after the text of the link if that differs."""
    link.tag = "span"
    link.attrib.clear()
    if "".join(link.itertext()).strip("./") in path:
        link[:] = []
        link.text = None
        SubElement(link, "code").text = AtomicString(path)
    else:
        SubElement(link, "span").text = " ("
        code = SubElement(link, "code")
        code.text, code.tail = AtomicString(path), ")"


def _replace(nav: object, old: str, new: object) -> object:
    """The navigation with the entry `old` replaced."""
    if isinstance(nav, list):
        return [_replace(item, old, new) for item in nav]
    if isinstance(nav, dict):
        return {label: _replace(item, old, new) for label, item in nav.items()}
    return new if nav == old else nav
