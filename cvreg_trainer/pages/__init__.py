# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What the HTML pages have in common: one look, and nothing that runs or is fetched but what we put there."""

from .render import json_for_html, render


__all__ = ["json_for_html", "render"]
