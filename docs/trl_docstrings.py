# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Turns docstrings in TRL's form into Markdown, for the API page.

Griffe's parsers know Google's form, whose types are bare; TRL's are Markdown (``name (`type`, *optional*):``), and
its references are [`Name`] or [`~library.Name`]. Hence the sections become lists here and are not parsed again.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import griffe


_SECTION = re.compile(r"(Args|Parameters|Returns|Raises|Yields|Example):\s*")
_PARAMETER = re.compile(r"([*\w][\w*, ]*?)(?: \((.*)\))?:")
_ERROR = re.compile(r"(?:`\w+`(?: or `\w+`)*|\[`\w+`\])(?::|$)")
_REFERENCE = re.compile(r"\[`(~?)([\w.]+)`\](?!\[|\()")
_DESCRIBED = re.compile(r"^::: (cvreg_trainer\.\S+)", re.MULTILINE)


class TrlDocstrings(griffe.Extension):
    """Rewrites every docstring when its object has been loaded."""

    def __init__(self) -> None:
        page = (Path(__file__).parent / "api.md").read_text(encoding="utf-8")
        self.described = _DESCRIBED.findall(page)
        self.links: dict[str, str] = {}

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        self.package = pkg
        for name in self.described:
            found = pkg[name.removeprefix(f"{pkg.path}.")]
            if found.is_module:
                self.links |= {member: f"{name}.{member}" for member in found.exports if _is_shown(found[member])}
            else:
                self.links[found.name] = name
        self._rewrite(pkg)

    def _rewrite(self, obj: Any) -> None:
        if obj.is_attribute and obj.parent.is_module and obj.is_public and not obj.docstring:
            obj.docstring = _comment_above(obj)
        if obj.docstring:
            obj.docstring.value = self._to_markdown(obj.docstring.value)
        for member in obj.members.values():
            if not member.is_alias:
                self._rewrite(member)

    def _to_markdown(self, text: str) -> str:
        parts = "\n\n".join(_paragraphs(text.splitlines()))
        # Notes in GitHub's form
        parts = re.sub(r"^> \[!(\w+)\]\n", lambda kind: f"> **{kind[1].capitalize()}.** ", parts, flags=re.MULTILINE)
        return _REFERENCE.sub(self._reference, parts)

    def _reference(self, found: re.Match[str]) -> str:
        is_foreign, name = bool(found[1]), found[2]
        first, _, member = name.partition(".")
        if is_foreign or first not in self.links:
            return f"`{name.rpartition('.')[2] if is_foreign else name}`"
        target = self.links[first]
        if member and member in self.package[target.removeprefix(f"{self.package.path}.")].members:
            target += f".{member}"
        return f"[`{name}`][{target}]"


def _is_shown(obj: Any) -> bool:
    return not obj.is_module and bool(obj.docstring or obj.is_attribute)


def _comment_above(constant: Any) -> griffe.Docstring:
    """What stands in comments right above a constant of a module."""
    first = last = (constant.lineno or 1) - 1
    lines = constant.lines_collection[constant.filepath]
    while first and lines[first - 1].startswith("# "):
        first -= 1
    text = "\n".join(line.removeprefix("# ") for line in lines[first:last])
    return griffe.Docstring(text or "A constant.", parent=constant)


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """Pieces of Markdown: sections as a heading and a list, all else as it is."""
    start = 0
    while start < len(lines):
        section = _SECTION.fullmatch(lines[start])
        end = start + 1
        if section is None:
            while end < len(lines) and not _SECTION.fullmatch(lines[end]):
                end += 1
            yield "\n".join(lines[start:end]).strip("\n")
        else:
            while end < len(lines) and (not lines[end] or lines[end].startswith(" ")):
                end += 1
            yield f"**{section[1]}**"
            yield _section(section[1], dedent("\n".join(lines[start + 1 : end])).strip("\n").splitlines())
        start = end


def _section(name: str, lines: list[str]) -> str:
    begins = {"Args": _PARAMETER, "Parameters": _PARAMETER, "Raises": _ERROR}.get(name)
    if begins is None:
        return "\n".join(lines)
    items: list[str] = []
    # A long type goes on in the next line
    for line in re.sub(r"^(\w+ \([^\n]*,)\n +", r"\1 ", "\n".join(lines), flags=re.MULTILINE).splitlines():
        if found := begins.match(line):
            items.append(f"- {_head(found, line) if begins is _PARAMETER else line}")
        elif items:
            items[-1] += f"\n    {line.strip()}" if line.strip() else "\n"
    return "\n".join(items)


def _head(found: re.Match[str], line: str) -> str:
    names = ", ".join(f"`{name.strip()}`" for name in found[1].split(","))
    kind = f" ({found[2]})" if found[2] else ""
    return f"{names}{kind}:{line[found.end() :]}"
