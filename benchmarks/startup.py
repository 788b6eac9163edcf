"""Startup time of commands that only print lists, relative to a Python process that does nothing.

Every run is a new process, with the files in the page cache. The commands and `python -c pass` take turns; a
time is the minimum over rounds, which other load on the machine affects least.

- `help_over_pass`: `--help` of the four commands, the slowest of them.
- `verbs_over_pass`: the verbs that list what comes with the package: `rainshift regions`, which reads 18 files,
  `radiomaps scenes` and `mcp-experts skill`.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys

from harness import FOLDER, least_seconds, main

from geoml.cli.tables import show

HELP = (("geoml", "--help"), ("rainshift", "--help"), ("radiomaps", "--help"), ("mcp_experts", "--help"))
VERBS = (("rainshift", "regions"), ("radiomaps", "scenes"), ("mcp_experts", "skill"))


def run(*words: str) -> None:
    """Run one process with this project on its path; raise an error if it fails."""
    found = {**os.environ, "PYTHONPATH": os.pathsep.join((str(FOLDER.parent), os.environ.get("PYTHONPATH", "")))}
    subprocess.run([sys.executable, *words], env=found, stdout=subprocess.DEVNULL, check=True)


def measure(quick: bool) -> dict[str, float]:
    """The figures of this script, by the keys of targets.yaml."""
    calls = {"pass": functools.partial(run, "-c", "pass")}
    calls |= {" ".join(words): functools.partial(run, "-m", *words) for words in (*HELP, *VERBS)}
    seconds = least_seconds(calls, 5 if quick else 30)
    show(
        [{"command": name, "ms": 1e3 * value, "over pass": value / seconds["pass"]} for name, value in seconds.items()]
    )

    def slowest(commands: tuple[tuple[str, str], ...]) -> float:
        return max(seconds[" ".join(words)] for words in commands) / seconds["pass"]

    return {"help_over_pass": slowest(HELP), "verbs_over_pass": slowest(VERBS)}


if __name__ == "__main__":
    main("startup", measure)
