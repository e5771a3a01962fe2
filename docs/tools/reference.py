"""A hook of mkdocs: the pages that follow from the tree, so that none is forgotten.

It adds a reference page for each public package, fills ``folder/*`` in the navigation with that
folder's pages, and shows the roles in docstrings (``:class:`Event```) as plain code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"


def public_packages() -> list[str]:
    """Dotted names of the packages whose front door lists anything."""
    doors = sorted((SOURCE / "chassis").rglob("__init__.py"))
    return [
        ".".join(door.parent.relative_to(SOURCE).parts)
        for door in doors
        if "/_" not in str(door.parent.relative_to(SOURCE)) and "__all__" in door.read_text()
    ]


def on_config(config: Any) -> Any:
    nav: list[Any] = []
    for entry in config["nav"]:
        title, pages = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        if not isinstance(pages, str) or not pages.endswith("/*"):
            nav.append(entry)
            continue
        folder = Path(config["docs_dir"], pages.removesuffix("*"))
        if found := [f"{folder.name}/{page.name}" for page in sorted(folder.glob("*.md"))]:
            nav.append({title: found})
    nav.append({"Reference": [{name: f"reference/{name}.md"} for name in public_packages()]})
    config["nav"] = nav
    return config


def on_files(files: Files, *, config: Any) -> Files:
    for name in public_packages():
        text = f"---\ntitle: {name}\n---\n\n# {name}\n\n::: {name}\n"
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_content(html: str, **_: Any) -> str:
    return re.sub(r":(?:class|meth|func|data|mod|attr|exc):<code>~?([^<]*)</code>", r"<code>\1</code>", html)
