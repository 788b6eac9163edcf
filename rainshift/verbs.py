"""What the verbs of `rainshift` do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

__all__ = ["regions"]


def regions(arguments: Sequence[str]) -> list[dict[str, Any]] | None:
    """List the regions: a table of their bounds, or with `--json` everything known of them."""
    parser = argparse.ArgumentParser(prog="rainshift regions", description="List the regions and their bounds.")
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    flags = parser.parse_args(arguments)
    from rainshift.regions import as_rows

    rows = as_rows()
    if flags.json:
        print(json.dumps(rows, indent=2))
        return None
    shown = ("name", "lat_min", "lat_max", "lon_min", "lon_max", "title")
    return [{key: row[key] for key in shown} for row in rows]
