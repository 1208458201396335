"""The order of the modules, read from their imports."""

import ast
import pathlib

import pytest

import skipnet_tf

_FOLDER = pathlib.Path(skipnet_tf.__file__).parent
# A module imports only from tiers before its own.
_TIERS = (
    "ops objectives flops metrics image_ops schedules optimizers losses "
    "static_search",
    "version versions serving sessions gated_graphs preprocessing",
    "digits files photographs input_service",
    "layers policy slices verification distillation",
    "gate_form stages sources",
    "gates blocks classifier folding peers reinforce elastic imitation "
    "confidence data",
    "training folded_gates",
    "resnet",
    "skipnet",
    "models frozen model_card recalibration",
    "entries state_dicts evaluation callbacks distribution signatures splits",
    "interop static_choice calibration logs collapse runs",
    "checkpoints export fitting retreats monitors",
    "attempts",
    "experiment",
    "analysis.published analysis.findings analysis.plots analysis.probes",
    "analysis.figures",
    "analysis.exhibits analysis.records",
    "analysis.run_exhibits analysis.image_exhibits analysis.class_exhibits",
    "analysis.path_exhibits analysis.sweep_exhibits analysis.baseline_exhibits",
    "analysis.table_exhibits analysis.report",
    "analysis",
    "analysis.__main__",
)
_TIER = {
    module: number
    for number, modules in enumerate(_TIERS, start=1)
    for module in modules.split()
}
_FILES = {
    ".".join(path.relative_to(_FOLDER).with_suffix("").parts): path
    for path in _FOLDER.rglob("*.py")
}
del _FILES["__init__"]
_FILES["analysis"] = _FILES.pop("analysis.__init__")
_MODULES = sorted(_FILES)


def _tree(module):
    return ast.parse(_FILES[module].read_text())


def _imports(module):
    """Dotted names of everything a module imports, lazily or not."""
    names = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_has_its_tier():
    assert set(_MODULES) == set(_TIER)


def test_contributors_are_told_the_tiers():
    text = (_FOLDER.parent / "CONTRIBUTING.md").read_text()
    rows = [line.split("|")[1] for line in text.split("\n") if "| `" in line]
    told = [row.replace("`", "").split() for row in rows]
    assert told.pop() == ["analysis/"]
    assert told == [
        tier.split() for tier in _TIERS if not tier.startswith("analysis")
    ]


@pytest.mark.parametrize("module", _MODULES)
def test_a_module_imports_only_from_earlier_tiers(module):
    for name in _imports(module):
        # The longest part of a dotted name that is a module of ours.
        parts = name.removeprefix("skipnet_tf.").split(".")
        known = {".".join(parts[:2]), parts[0]} & set(_TIER)
        if name.startswith("skipnet_tf.") and known:
            imported = max(known, key=len)
            assert _TIER[imported] < _TIER[module], f"imports {imported}"


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("versions", set()),
        ("serving", set()),
        ("sessions", set()),
        ("gated_graphs", set()),
        ("verification", {"gated_graphs", "serving", "sessions"}),
    ],
)
def test_what_operators_use_knows_no_network(module, needed):
    names = (name.split(".") for name in _imports(module))
    assert {n[1] for n in names if n[0] == "skipnet_tf"} == needed


def test_the_package_never_reads_flags():
    for module in _MODULES:
        names = _imports(module)
        assert not any(n.startswith("absl") for n in names), module


def test_only_what_opens_splits_imports_tensorflow_datasets():
    importing = {
        module
        for module in _MODULES
        if any(n.startswith("tensorflow_datasets") for n in _imports(module))
    }
    assert importing == {"slices", "sources"}


def test_only_ops_defines_gradients():
    defining = {
        module
        for module in _MODULES
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.Attribute) and node.attr == "custom_gradient"
    }
    assert defining == {"ops"}
