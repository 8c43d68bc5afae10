# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Lets the built site follow the links that work in the repository, and lists what the package exports.

Pages link to files outside `docs/`, such as `../examples/train_llava.py`. MkDocs only knows what is below `docs/`, so
each of those files becomes a page or a download of the site, and links of such pages back into `docs/` are shortened.
"""

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


ROOT = Path(__file__).parent.parent
# Documents of the repository that are pages of the site; other files are added where a page links to them
PAGES = ("benchmarks/README.md", "benchmarks/screening_split.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
EXPORTS = "<!-- exports -->"
_LINK = re.compile(r"\]\(([^()#\s:]+)(#[^()\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that are pages, or that pages link to."""
    wanted = set(PAGES)
    for source in (*(ROOT / "docs").rglob("*.md"), *(ROOT / page for page in PAGES)):
        for link in _LINK.finditer(source.read_text(encoding="utf-8")):
            target = (source.parent / link[1]).resolve()
            if target.is_file() and not target.is_relative_to(ROOT / "docs"):
                wanted.add(target.relative_to(ROOT).as_posix())
    for name in sorted(wanted):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page from the repository's layout to the site's, and fill in the exported names."""
    uri: str = page.file.src_uri
    in_repository = uri if uri in PAGES else f"docs/{uri}"

    def rewrite(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), link[1]))
        in_site = target.removeprefix("docs/")
        return f"]({posixpath.relpath(in_site, posixpath.dirname(uri) or '.')}{link[2] or ''})"

    return _LINK.sub(rewrite, markdown).replace(EXPORTS, exports())


def exports() -> str:
    """What `cvreg_trainer` exports, by the module that it comes from, as links to the descriptions."""
    tree = ast.parse((ROOT / "cvreg_trainer" / "__init__.py").read_text(encoding="utf-8"))
    values = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    by_module: dict[str, list[str]] = ast.literal_eval(values["_EXPORTS"])
    lines = ["| from | names |", "| --- | --- |"]
    for module, names in by_module.items():
        links = ", ".join(f"[`{name}`][cvreg_trainer.{module}.{name}]" for name in names)
        lines.append(f"| `cvreg_trainer.{module}` | {links} |")
    return "\n".join(lines)
