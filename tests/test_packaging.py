"""What the package brings with it, and which of its modules may know which."""

import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import keras_greedylr

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_greedylr"

# Imports run one way: what each module, or folder of modules, may know of the package.
BASE = {"rule", "schedules", "observation", "policy", "state_file", "validation", "whole_file"}
MAY_KNOW = {
    "validation": set(),
    "rule": {"validation"},
    "schedules": {"validation"},
    "observation": {"validation"},
    "whole_file": set(),
    "state_file": {"validation", "whole_file"},
    "policy": {"observation", "validation"},
    "callbacks": BASE,
    "optimizers": BASE,
    "find_lr": {*BASE, "callbacks"},
    "compare": {*BASE, "callbacks", "optimizers", "find_lr"},
    "from_spec": set(),
    "cli": {*BASE, "callbacks", "optimizers", "find_lr", "compare", "from_spec", "__init__"},
    "__init__": {*BASE, "callbacks", "optimizers", "compare"},
}


def imported(source, package="keras_greedylr"):
    """Returns the full names of what a module of `package` imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if node.level:
                module = importlib.util.resolve_name(module, package)
            # `from package import name`: the name may be a module.
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def known(names):
    """Returns which parts of keras_greedylr the imported names belong to."""
    parts = set()
    for name in names:
        top, *rest = name.split(".")
        if top == "keras_greedylr":
            is_part = rest and rest[0] in MAY_KNOW
            parts.add(rest[0] if is_part else "__init__")
    return parts


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("import numpy, keras_greedylr.rule", {"rule"}),
        ("from keras_greedylr.rule import GreedyRule", {"rule"}),
        ("from keras_greedylr import policy", {"policy"}),
        ("from keras_greedylr import GreedyRule", {"__init__"}),
        ("import keras_greedylr", {"__init__"}),
        ("from ..rule import GreedyRule", {"rule"}),
        ("from .batch_loss import BatchLoss", {"callbacks"}),
        ("def f():\n    from .. import policy", {"policy"}),
        ("import keras, keras_greedylr_agents", set()),
    ],
)
def test_the_reader_of_imports(source, parts):
    assert known(imported(source, package="keras_greedylr.callbacks")) == parts


MODULES = {str(path.relative_to(ROOT)): path for path in sorted(PACKAGE.rglob("*.py"))}


def part_of(path):
    """Returns the module, or the folder of modules, that a file of keras_greedylr is."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_each_module_has_its_place():
    assert {part_of(path) for path in MODULES.values()} <= set(MAY_KNOW)


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way(name):
    path = MODULES[name]
    package = ".".join(path.relative_to(ROOT).parts[:-1])
    names = imported(path.read_text(encoding="utf-8"), package)
    assert known(names) <= MAY_KNOW[part_of(path)] | {part_of(path)}
    assert not {name.split(".")[0] for name in names} & {"keras_greedylr_agents", "agents"}


WATCHED_IMPORT = """
import json, sys
import keras, numpy

class Watch:
    asked = set()

    def find_spec(self, name, path=None, target=None):
        self.asked.add(name.split(".")[0])

sys.meta_path.insert(0, Watch())
import keras_greedylr
print(json.dumps(sorted(Watch.asked - sys.stdlib_module_names)))
"""


def test_importing_it_asks_for_nothing_but_keras_and_numpy():
    # Asked for, not loaded: so an import that is tried and given up shows too.
    shown = subprocess.check_output([sys.executable, "-c", WATCHED_IMPORT], text=True)
    assert json.loads(shown.splitlines()[-1]) == ["keras_greedylr"]


PUBLIC = ["", ".callbacks", ".optimizers", ".schedules", ".compare"]


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_class_and_function_has_an_example(module):
    """One that `make docs-test` runs, in its own docstring or where that one points."""
    if module == ".compare":
        pytest.importorskip("scipy")
        pytest.importorskip("rich")
    public = importlib.import_module(f"keras_greedylr{module}")
    for thing in filter(callable, map(public.__dict__.get, public.__all__)):
        assert re.search(r">>> |Example: see `\w+`", thing.__doc__), thing


def test_setup_and_package_agree_on_the_version():
    (version,) = re.findall(r'^    version="(.+)",$', (ROOT / "setup.py").read_text(), re.M)
    assert version == keras_greedylr.__version__


def test_no_module_is_named_agents(tmp_path):
    # From a folder of its own: run from the repository the folder agents/ would be found.
    names = ["keras_greedylr", "keras_greedylr_agents", "agents"]
    code = f"import importlib.util as u; print([u.find_spec(name) is not None for name in {names}])"
    shown = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=tmp_path)
    assert shown.strip() == "[True, True, False]"


SCRIPTS = metadata.distribution("keras-greedylr").entry_points.select(group="console_scripts")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_each_command_starts(script):
    if script.module.startswith("keras_greedylr_agents"):
        pytest.importorskip("tf_agents")
    command = Path(sys.executable).with_name(script.name)
    shown = subprocess.check_output([command, "--help"], text=True)
    assert shown.startswith(f"usage: {script.name}")
