# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Finds the files of installed packages: in one folder they were unpacked into, or where the system has them."""

from __future__ import annotations

from pathlib import Path

from ...shorten import shorten


SYSTEM = Path("/usr/share")


def find_debian(packages: str | Path | None, package: str, inside: str) -> Path:
    """
    A file or folder of a Debian package.

    Args:
        packages (`str` or `Path`, *optional*):
            Folder that packages were unpacked into by `dpkg-deb -x FILE.deb packages`. What is not there is looked for
            among the packages that the system has installed.
        package (`str`):
            Name of the package, for the message.
        inside (`str`):
            Path under `/usr/share`.

    Raises:
        `FileNotFoundError`: if it is neither here nor there, with what to install.
    """
    places = [SYSTEM / inside]
    if packages is not None:
        places.insert(0, Path(packages) / "usr" / "share" / inside)
    command = f"`apt-get download {package}` and `dpkg-deb -x {package}_*.deb {packages or 'packages'}`"
    return _first(places, f"Debian package {package}", f"{command}, or `apt-get install {package}`")


def find_npm(packages: str | Path | None, package: str, inside: str) -> Path:
    """
    A file or folder of an npm package; arguments and errors as for [`find_debian`].

    Args:
        packages (`str` or `Path`, *optional*):
            Folder that packages were installed into by `npm install --prefix packages`. Without one, the working
            directory.
        package (`str`):
            Name of the package.
        inside (`str`):
            Path inside the package.
    """
    place = Path(packages or ".") / "node_modules" / package / inside
    command = f"`npm install --ignore-scripts --prefix {packages or '.'} {package}`"
    return _first([place], f"npm package {package}", command)


def _first(places: list[Path], what: str, command: str) -> Path:
    for place in places:
        if place.exists():
            return place
    looked = " and ".join(shorten(str(place)) for place in places)
    raise FileNotFoundError(f"The {what} is not installed: there is no {looked}. Run {command}.")
