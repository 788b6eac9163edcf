"""The rules of the house, kept by tests."""

import ast
import functools
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("geoml", "rainshift", "radiomaps", "mcp_experts")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]

#: What only one place may touch: by import (inside functions too), or by attribute.
OWNERS = {
    "sionna.rt": "radiomaps.raytrace",
    "mitsuba": "radiomaps.raytrace",
    "drjit": "radiomaps.raytrace",
    "sionna.phy": "mcp_experts.train",
    "torch.distributed": "geoml.train.device",
}


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text())


def dotted(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def touched(tree):
    """Dotted names that a module imports or reaches through attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield dotted(node)


def trespasses(module, tree):
    return [
        name
        for name in touched(tree)
        for owned, owner in OWNERS.items()
        if f"{name}.".startswith(f"{owned}.") and not f"{module}.".startswith(f"{owner}.")
    ]


def test_there_is_something_to_look_at():
    assert len(FILES) > 40
    assert {name.partition("/")[0] for name in NAMES} == set(PACKAGES)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_only_owners_touch_what_is_owned(path):
    assert trespasses(module_of(path), tree_of(path)) == []


def test_the_rule_of_owners_can_fail():
    for source in (
        "import torch.distributed as d",
        "from torch import distributed",
        "def f():\n    import mitsuba",
        "import torch\ntorch.distributed.init_process_group()",
        "from sionna.rt import Scene",
    ):
        assert trespasses("geoml.train.loop", ast.parse(source)), source
    assert not trespasses("geoml.train.device", ast.parse("import torch.distributed as d"))
    assert not trespasses("geoml.train.loop", ast.parse("from torch.distributions import Normal"))


def test_layers_hold():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as go; go()", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import geoml, rainshift, radiomaps, mcp_experts", "torch xarray dask hydra numpy rich zarr"),
        (
            "import geoml.errors, geoml.runs.files, geoml.cli.progress, geoml.cli.app, geoml.cli.tables",
            "torch xarray dask hydra numpy",
        ),
        (
            "import geoml.runs.folder, geoml.cli.config, geoml.cli.doctor, geoml.cli.compose, geoml.cli.verbs",
            "torch xarray dask hydra",
        ),
        ("import geoml.__main__, rainshift.__main__, radiomaps.__main__, mcp_experts.__main__", "torch xarray hydra"),
        ("import rainshift.verbs; rainshift.verbs.regions(['--json'])", "torch xarray dask hydra"),
        ("import rainshift; rainshift.regions(); rainshift.load, rainshift.Model", "torch xarray dask hydra pandas"),
    ],
)
def test_imports_are_cheap(statement, forbidden):
    code = f"import sys; {statement}; print(*sorted(set({forbidden.split()}) & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_and_functions_stay_short(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 400
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 70, f"{node.name} has {length} lines"


def run_time_imports(tree):
    """Import statements, in functions too, without those that only a type checker follows."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            yield from (found for other in child.orelse for found in run_time_imports(ast.Module([other], [])))
        else:
            yield from (child,) if isinstance(child, ast.Import | ast.ImportFrom) else ()
            yield from run_time_imports(child)


def import_graph(trees):
    """The modules that each module imports, by name."""
    graph = {}
    for module, tree in trees.items():
        names = set()
        for node in run_time_imports(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            else:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        for name in list(names):  # a name of a module stands for the module
            while name and name not in trees:
                name = name.rpartition(".")[0]
            graph.setdefault(module, set()).add(name)
        graph[module] = graph.get(module, set()) - {"", module}
    return graph


def circles(graph):
    """Modules that cannot be put into an order in which each imports only earlier ones, by Kahn's algorithm."""
    left = {module: set(names) for module, names in graph.items()}
    while ready := [module for module, names in left.items() if not names & set(left)]:
        for module in ready:
            del left[module]
    needed = set.union(set(), *left.values())
    while outside := [module for module in left if module not in needed]:  # they only lead into a circle
        for module in outside:
            del left[module]
        needed = set.union(set(), *left.values())
    return sorted(left)


def test_no_modules_import_each_other_in_a_circle():
    assert circles(import_graph({module_of(path): tree_of(path) for path in FILES})) == []


def test_a_circle_is_found():
    trees = {
        "a": ast.parse("def f():\n    from b import g"),
        "b": ast.parse("import c"),
        "c": ast.parse("from a import f"),
        "d": ast.parse("import a"),
        "e": ast.parse("if TYPE_CHECKING:\n    import d"),
    }
    assert circles(import_graph(trees)) == ["a", "b", "c"]
    assert circles(import_graph({**trees, "c": ast.parse("if TYPE_CHECKING:\n    from a import f")})) == []


def test_packages_have_few_entries_at_their_top():
    for package in PACKAGES:
        entries = [path.name for path in (ROOT / package).iterdir() if not path.name.startswith(("_", "."))]
        assert len(entries) <= 22, f"{package}: {sorted(entries)}"


def test_modules_are_named_for_what_they_hold():
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
    assert [name for name in NAMES if vague & set(Path(name).with_suffix("").parts)] == []


#: The same stage of rain and radio: the same word on purpose.
MIRRORED = {"Baseline", "BenchmarkResults", "Cell", "Leak", "Model", "Recipe", "Trained"}


def test_a_class_name_means_one_thing():
    places: dict[str, list[str]] = {}
    for path, name in zip(FILES, NAMES, strict=True):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(name)
    several = {name: found for name, found in places.items() if len(found) > 1}
    packages = {name: [place.partition("/")[0] for place in found] for name, found in several.items()}
    assert {name: several[name] for name, found in packages.items() if len(set(found)) < len(found)} == {}
    assert {name: found for name, found in several.items() if name not in MIRRORED and name[0] != "_"} == {}


GLOBAL_STATE = (
    "torch.manual_seed",
    "torch.set_num_threads",
    "torch.use_deterministic_algorithms",
    "torch.set_default_dtype",
    "torch.set_float32_matmul_precision",
    "torch.multiprocessing.set_start_method",
    "multiprocessing.set_start_method",
    "logging.basicConfig",
    "numpy.random.seed",
    "np.random.seed",
    "warnings.simplefilter",
)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_importing_changes_no_global_state(path):
    """What runs on import: calls in the body of a module or of a class, not of a function."""
    pending, found = list(tree_of(path).body), []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else []
        found += [name for name in map(dotted, targets) if name.startswith(("torch.backends", "torch.set_"))]
        if isinstance(node, ast.Call):
            found += [name for name in [dotted(node.func)] if name in GLOBAL_STATE]
        if isinstance(node, ast.If) and "__main__" in ast.dump(node.test):
            continue
        pending += list(ast.iter_child_nodes(node))
    assert found == []


def test_no_library_code_starts_a_dask_cluster():
    """A verb of a command line may, when asked."""
    for path in FILES:
        if path.name == "verbs.py":
            continue
        nodes = list(ast.walk(tree_of(path)))
        imported = {node.module.partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        imported |= {
            alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names
        }
        if not imported & {"dask", "distributed", "dask_cuda"}:
            continue  # other libraries have clients too
        calls = {dotted(node.func).rpartition(".")[2] for node in nodes if isinstance(node, ast.Call)}
        assert not calls & {"LocalCluster", "Client", "LocalCUDACluster"}, path.name


def test_the_wheel_holds_the_four_packages_and_their_yaml(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PIP_NO_INDEX": "1"})
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    kept = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix in (".py", ".yaml", ".typed")
    }
    assert {name.partition("/")[0] for name in packed} == set(PACKAGES)
    assert kept - packed == set()
    assert "rainshift/conf/__init__.py" in packed
    assert any(name.startswith("geoml/conf/") and name.endswith(".yaml") for name in packed)
