"""Imports point one way, heavy ones are lazy, and forbidden things are absent."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the world upwards; a file may import from its own layer and those above it in this list.
LAYERS = [
    ["simulators"],
    ["toolkit.statistics", "toolkit.zero_router", "toolkit.scorers", "toolkit.policies"],
    ["toolkit.evaluation"],
    ["toolkit.dimensions", "toolkit.spaces", "toolkit.families", "toolkit.problem", "toolkit.synthetic"],
    ["toolkit.deployment"],
    ["toolkit.pareto"],
    ["toolkit.search", "toolkit.baselines"],
    ["toolkit.certify"],
    ["toolkit.export"],
    ["toolkit.report", "toolkit.tracking"],
    ["experiments"],
]
HEAVY = {
    "simulators.envs": {"gymnasium"},
    "toolkit.search": {"torch", "botorch", "gpytorch", "pymoo", "optuna"},
    "toolkit.tracking": {"wandb"},
}  # layers that may import these; all but gymnasium inside functions only
PACKAGES = ("simulators", "toolkit", "experiments")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def layer_of(module: str) -> int | None:
    for level, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return level
    return None


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_point_one_way(path):
    own = layer_of(module_name(path))
    assert own is not None or module_name(path) == "toolkit", f"{path} is in no layer; add it to LAYERS"
    for module in imported_modules(path):
        level = layer_of(module)
        if level is not None and own is not None:
            assert level <= own, f"{module_name(path)} (layer {own}) imports {module} (layer {level})"


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_hydra_and_printing_stop_in_experiments(path):
    if module_name(path).startswith("experiments"):
        return
    roots = {module.split(".")[0] for module in imported_modules(path)}
    forbidden = {"hydra", "omegaconf", "wandb", "rich", "torch", "botorch", "gpytorch", "pymoo", "optuna"}
    forbidden |= {"gymnasium", "stable_baselines3"}
    forbidden |= {"pickle", "joblib"}
    allowed = next((names for layer, names in HEAVY.items() if module_name(path).startswith(layer)), set())
    assert not roots & (forbidden - allowed)
    calls = [
        n.func.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call) and hasattr(n.func, "id")
    ]
    assert "print" not in calls


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_heavy_packages_are_imported_inside_functions_only(path):
    heavy = {"torch", "botorch", "gpytorch", "pymoo", "optuna", "wandb", "litellm"}
    for node in ast.parse(path.read_text()).body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & heavy


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_no_unsafe_loading_and_no_global_randomness(path):
    text = path.read_text()
    for forbidden in ("yaml.load(", "allow_pickle=True", "np.random.seed", "pickle.load", "np.random.rand"):
        assert forbidden not in text


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from experiments.cli import main; assert main(['--help']) == 0 == main(['tune', '--help'])\n"
        "heavy = {'numpy', 'scipy', 'sklearn', 'hydra', 'matplotlib', 'pyarrow', 'litellm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
