"""dvc.yaml compared with the imports of the code, which DVC does not follow."""

from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

from pipeline.config import load_params
from tests.helpers import ROOT

DAG = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGES: dict[str, Any] = DAG["stages"]
CODE = ("pipeline", "stages", "demo")


def import_graph() -> grimp.ImportGraph:
    """All imports, also inside functions, and those that a package does lazily."""
    graph = grimp.build_graph(*CODE, exclude_type_checking_imports=True, cache_dir=None)
    promised = grimp.build_graph(*CODE, cache_dir=None)
    for package in [name for name in graph.modules if graph.find_children(name)]:
        for name in promised.find_modules_directly_imported_by(package):
            graph.add_import(importer=package, imported=name)
    return graph


GRAPH = import_graph()


def below(module: str, dep: str) -> bool:
    path = module.replace(".", "/")
    return path + ".py" == dep or f"{path}/".startswith(f"{dep}/")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_what_it_imports_and_nothing_else(stage: str) -> None:
    imported = {f"stages.{stage}"} | GRAPH.find_upstream_modules(f"stages.{stage}")
    modules = {name for name in imported if not GRAPH.find_children(name)}  # without packages
    listed = {dep for dep in STAGES[stage]["deps"] if dep.startswith(CODE)}
    assert {m for m in modules if not any(below(m, dep) for dep in listed)} == set(), "add them"
    assert {dep for dep in listed if not any(below(m, dep) for m in modules)} == set(), "unused"
    assert all((ROOT / dep).exists() for dep in listed)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_watches_parameters_that_exist(stage: str) -> None:
    params = load_params(ROOT / "params.yaml").model_dump()
    for name in STAGES[stage].get("params", []):
        value: Any = params
        for part in name.split("."):
            assert part in value, name
            value = value[part]


def watching(section: str) -> list[str]:
    return [name for name in STAGES if section in STAGES[name].get("params", [])]


@pytest.mark.parametrize("stage", ["pseudo", "encoder", "train"])
def test_data_sets_panels_and_evaluation_rerun_neither_clip_nor_training(stage: str) -> None:
    listed = STAGES[stage]["deps"]
    others = ("pipeline/datasets", "pipeline/report", "pipeline/config/eval.py")
    assert not any(dep.startswith(others) for dep in listed)
    assert "pipeline/config" not in listed
    assert "dataset" not in STAGES[stage]["params"]


def test_settings_rerun_only_the_stages_that_use_them() -> None:
    assert watching("carb") == ["train", "report"]
    assert watching("pictures") == ["eval", "eval_pseudo", "report"]
    assert "data/image_labels.csv" not in STAGES["pseudo"]["deps"]
    assert STAGES["report"]["params"] == list(load_params(ROOT / "params.yaml").model_dump())
    assert not any("results/report.html" in stage["deps"] for stage in STAGES.values())


def test_every_declared_plot_is_an_output() -> None:
    outs = [
        out if isinstance(out, str) else next(iter(out))
        for s in STAGES.values()
        for out in s["outs"]
    ]
    paths = [plot for plot in DAG["plots"] if isinstance(plot, str)]
    for plot in DAG["plots"]:
        if not isinstance(plot, str):
            paths += next(iter(plot.values()))["y"]
    for path in paths:
        assert any(path == out or path.startswith(f"{out}/") for out in outs), path


def test_the_artifact_is_an_output() -> None:
    outs = [out for stage in STAGES.values() for out in stage["outs"]]
    assert DAG["artifacts"]["segmenter"]["path"] in outs
