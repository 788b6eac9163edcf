"""Private parts of other packages: each is used by one file, and a test says what moved in a new version."""

import ast
import inspect
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("geoml", "rainshift", "radiomaps", "mcp_experts")
#: Modules of others that no user is promised, though their names have no underscore.
UNDOCUMENTED = ("zarr.core", "mcp.server.mcpserver.utilities")
#: The one file for each package of others.
ALLOWED = {"hydra": "geoml/cli/hydra_private.py"}


def _imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _private(name):
    return name.startswith(UNDOCUMENTED) or any(
        part.startswith("_") and not part.endswith("__") for part in name.split(".")[:-1]
    )


def test_private_modules_of_others_are_imported_in_one_file_each():
    found = {
        (str(file.relative_to(ROOT)), name)
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for name in _imports(file)
        if name.split(".")[0] not in PACKAGES and _private(name)
    }
    assert {name.split(".")[0] for _, name in found} == set(ALLOWED)
    assert {file for file, _ in found} == set(ALLOWED.values())


@pytest.mark.parametrize(
    ("name", "owner"),
    [("fn_metadata", "mcp_experts/serve/strict.py"), ("_sync_open", "geoml/data/zip_stores.py")],
)
def test_private_attributes_of_others_are_used_in_one_file(name, owner):
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    assert [str(file.relative_to(ROOT)) for file in files if name in file.read_text()] == [owner]


def test_hydra_has_what_the_command_line_takes():
    hydra = f"hydra-core {version('hydra-core')}: change geoml/cli/hydra_private.py"
    try:
        from geoml.cli.hydra_private import ConfigLoaderImpl, Hydra, create_config_search_path
    except ImportError as error:
        pytest.fail(f"{hydra} ({error})")
    wanted = {
        ConfigLoaderImpl.__init__: {"config_search_path"},
        ConfigLoaderImpl.load_configuration: {"config_name", "overrides", "run_mode"},
        ConfigLoaderImpl.list_groups: {"parent_name"},
        ConfigLoaderImpl.get_group_options: {"group_name", "results_filter"},
        Hydra.__init__: {"task_name", "config_loader"},
        Hydra.multirun: {"config_name", "task_function", "overrides"},
        Hydra.shell_completion: {"config_name", "overrides"},
        create_config_search_path: {"search_path_dir"},
    }
    for function, arguments in wanted.items():
        assert arguments <= inspect.signature(function).parameters.keys(), f"{hydra} ({function.__qualname__})"


def test_a_tool_of_the_sdk_has_the_models_that_strict_tools_change():
    tool = pytest.importorskip("mcp.server.mcpserver.tools.base").Tool.from_function(lambda a: a, name="a")
    mcp = f"mcp {version('mcp')}: change mcp_experts/serve/strict.py"
    metadata = getattr(tool, "fn_metadata", None)
    assert metadata is not None, mcp
    assert hasattr(metadata.arg_model, "model_json_schema"), mcp
    assert hasattr(metadata, "output_schema"), mcp


def test_a_zip_store_of_zarr_opens_as_remote_ones_need_it(tmp_path):
    zarr = pytest.importorskip("zarr")
    store = zarr.storage.ZipStore(tmp_path / "a.zip", mode="w")
    message = f"zarr {version('zarr')}: change geoml/data/zip_stores.py"
    assert not store._is_open, message
    store._sync_open()
    assert store._is_open, message
    assert store._zf.namelist() == [], message
    assert hasattr(store, "_lock"), message
    store.close()
