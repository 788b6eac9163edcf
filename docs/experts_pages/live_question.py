"""One question to the model on this machine, through the server: `python docs/experts_pages/live_question.py FOLDER`.

The exchange is written to `FOLDER/live.md` as it was. Without the extra `llm` a line says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from mcp_experts.channels.synthetic import synthesize
from mcp_experts.local.model import installed
from mcp_experts.report.html import LIVE

__all__ = ["live"]

QUESTION = "Is the direct path clear or blocked?"


def live(folder: Path) -> str:
    """Ask about a link with a direct path and return the exchange as text."""
    link = synthesize(delay_spread_s=3e-7, doppler_hz=120, k_factor_db=9, snr_db=22)
    sampling = {name: getattr(link, name) for name in ("subcarrier_spacing_hz", "snapshot_interval_s")}
    np.savez(folder / "link.npz", csi=link.csi, **sampling)
    record = folder / "live.json"
    words = [QUESTION, "--local", "--channel", str(folder / "link.npz"), "--transcript", str(record)]
    command = [sys.executable, "-m", "mcp_experts", "ask", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = []
    for entry in json.loads(record.read_text(encoding="utf-8")):
        if "user" in entry:
            lines.append(f"user: {entry['user']}")
        elif "tool" in entry:
            lines += [f"← {line}" for line in entry["result"].splitlines()]
        else:
            lines += [f"→ {call['tool']} {json.dumps(call['arguments'])}" for call in entry["calls"]]
            lines += [f"model: {entry['assistant']}"] if entry["assistant"] else []
    return "\n".join([*lines, done.stderr.strip()])


if __name__ == "__main__":
    if installed():
        text = live(Path(sys.argv[1]))
        (Path(sys.argv[1]) / LIVE).write_text(text + "\n", encoding="utf-8")
        print(text)
    else:
        print("no live question: make llm-setup installs a small language model (130 MB)")
