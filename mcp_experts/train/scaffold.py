"""`mcp-experts new`: a template of an expert, which fails the tests until it is complete."""

from __future__ import annotations

import argparse
import keyword
import re
from collections.abc import Sequence
from pathlib import Path

from geoml.errors import UserError
from geoml.runs.files import atomic_path, writing
from mcp_experts import experts
from mcp_experts.inference.registry import definitions

__all__ = ["new"]

TEMPLATE = '''"""{title}."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="{name}",
    title="{title}",
    purpose="What it decides, and for which questions a language model should ask it.",
    classes=("low", "high"),
    truth="snr_db",
    estimator="snr_db",
    edges=(10.0,),
    unit="dB",
    cells_unit="dB",
    meaning="what the truth is, and where it comes from",
    limits="what the data cannot tell",
    examples=(Example({{"snr_db": 30}}, ("high",)),),
)
'''
STEPS = """\
{file}
  1. say what it decides: purpose, classes, edges, truth (mcp_experts/train/truths.py), estimator (classical.py)
  2. mcp-experts train expert={name}      writes {folder}/weights.npz and card.json
  3. pytest tests/mcp_experts/test_experts.py -k {name}      fails until both are done"""


def new(arguments: Sequence[str]) -> int:
    """Write an expert's file and folder; raises `UserError` for invalid or existing names."""
    parser = argparse.ArgumentParser(prog="mcp-experts new", description="Create the file and folder of an expert.")
    parser.add_argument("name", help="lower case with underscores, as rain_fade")
    parser.add_argument("--folder", type=Path, default=Path(str(experts.__file__)).parent, help="where experts live")
    flags = parser.parse_args(arguments)
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", flags.name) or keyword.iskeyword(flags.name):
        raise UserError(
            f"{flags.name!r} is not a valid name: use lower-case letters, digits and underscores, and no Python keyword"
        )
    file, folder = flags.folder / f"{flags.name}.py", flags.folder / flags.name
    if flags.name in definitions() or file.exists() or folder.exists():
        raise UserError(f"there is an expert {flags.name} already; choose another name")
    with writing(folder):
        folder.mkdir(parents=True)
    with atomic_path(file) as partial:
        partial.write_text(
            TEMPLATE.format(name=flags.name, title=flags.name.replace("_", " ").capitalize()), encoding="utf-8"
        )
    print(STEPS.format(file=file, folder=folder, name=flags.name))
    return 0
