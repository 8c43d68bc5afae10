# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
One HTML file from a template.

Notable: whatever comes from data is hostile until shown otherwise. The templates escape it, or hold it as JSON that
cannot end its own element, and a content security policy allows the page's own script and style alone, by their
hashes, and no request of any kind.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any


_BASE_STYLE = Path(__file__).parent / "base.css"


def render(folder: Path, name: str, **values: Any) -> bytes:
    """
    Fill in a page's template.

    Args:
        folder (`Path`):
            Folder of `NAME.html.j2`, `NAME.css` and, if the page has a script, `NAME.js`.
        name (`str`):
            Name of the page.
        **values:
            What the template shows.

    Returns:
        `bytes`: the page. What cannot be encoded, such as half of a character, is replaced by a question mark.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = "".join(path.read_text(encoding="utf-8") for path in (_BASE_STYLE, folder / f"{name}.css"))
    script = folder / f"{name}.js"
    page = environment.get_template(f"{name}.html.j2").render(
        **values,
        style=style,
        style_hash=_csp_hash(style),
        script=(text := script.read_text(encoding="utf-8") if script.is_file() else ""),
        script_hash=_csp_hash(text),
    )
    return page.encode("utf-8", "replace")


def json_for_html(value: Any) -> str:
    """JSON that neither ends nor opens an element or a comment, wherever in a script element it stands."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _csp_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
