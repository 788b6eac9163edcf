"""Write THIRD_PARTY_NOTICES.md: the licences of what geoml needs at run time, from the installed packages' metadata.

python docs/notices.py
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE = ROOT / "THIRD_PARTY_NOTICES.md"
#: Extras that only building, testing and measuring need.
NOT_RUNTIME = {"all", "bench", "dev", "docs"}
#: Of packages that no environment for development has.
NOT_INSTALLED = {
    "onnx": ("Apache-2.0", "https://onnx.ai"),
    "onnxruntime": ("MIT License", "https://onnxruntime.ai"),
    "xllamacpp": ("MIT", "https://github.com/xorbitsai/xllamacpp"),
}

HEADING = """# Third-party notices

geoml itself is under the Apache License 2.0 (`LICENSE`). It contains no code of others. Its direct
run-time dependencies are installed separately under the licences below, as the metadata of the packages state them
(this page is written by `python docs/notices.py`). Each of them has further dependencies.

Data carry licences too: ERA5 (Copernicus licence), GPM IMERG (free to use, to be cited), OpenStreetMap and the scenes
of Sionna RT made from it (ODbL 1.0). What a file says of its licence travels along into stores, maps and predictions.

"""


def name_of(requirement: str) -> str:
    """The normalised name of a requirement."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~! ;]", requirement, maxsplit=1)[0]).lower()


def required() -> dict[str, list[str]]:
    """What the base and each extra need, by name, with who needs it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"base": project["dependencies"]} | {
        extra: names for extra, names in project["optional-dependencies"].items() if extra not in NOT_RUNTIME
    }
    found: dict[str, list[str]] = {}
    for group, requirements in groups.items():
        for name in map(name_of, requirements):
            if name != "geoml":
                found.setdefault(name, []).append(group)
    return dict(sorted(found.items()))


def licence(name: str) -> tuple[str, str]:
    """Licence and home page of an installed package."""
    if name in NOT_INSTALLED:
        return NOT_INSTALLED[name]
    metadata = importlib.metadata.metadata(name)
    classifiers = [
        value.rpartition(" :: ")[2] for value in metadata.get_all("Classifier") or [] if "License ::" in value
    ]
    text = (metadata.get("License") or "").strip().replace("UNKNOWN", "")
    short = text if "\n" not in text and len(text) <= 60 else ""
    page = metadata.get("Home-page") or ""
    urls = dict(value.split(", ", 1) for value in metadata.get_all("Project-URL") or [] if ", " in value)
    for key in ("Homepage", "homepage", "Home", "Repository", "repository", "Source", "Source Code", "source"):
        page = page or urls.get(key, "")
    return metadata.get("License-Expression") or short or ", ".join(classifiers) or "see its files", page


def rows() -> Iterator[str]:
    """The lines of the table."""
    yield "| package | licence | needed by | home |"
    yield "|---|---|---|---|"
    for name, groups in required().items():
        terms, page = licence(name)
        yield f"| {name} | {terms} | {', '.join(groups)} | {page} |"


if __name__ == "__main__":
    FILE.write_text(HEADING + "\n".join(rows()) + "\n")
