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


def test_training_has_no_path_to_human_masks() -> None:
    for stage in ("pseudo", "encoder", "train"):
        assert "${dataset.root}" not in STAGES[stage]["deps"]
        assert "dataset" not in STAGES[stage]["params"]


@pytest.mark.parametrize("folder", ["datasets", "report", "config/eval.py"])
def test_data_sets_pictures_and_evaluation_run_neither_clip_nor_training_again(folder: str) -> None:
    for stage in ("pseudo", "encoder", "train"):
        listed = STAGES[stage]["deps"]
        assert not any(dep.startswith(f"pipeline/{folder}") for dep in listed)
        assert "pipeline/config" not in listed


def test_tau_concerns_training_alone_and_the_report_shows_it() -> None:
    told = [name for name in STAGES if "carb" in STAGES[name].get("params", [])]
    assert told == ["train", "report"]


def test_report_is_made_again_when_any_setting_changes() -> None:
    assert STAGES["report"]["params"] == list(load_params(ROOT / "params.yaml").model_dump())


def test_nothing_waits_for_the_report() -> None:
    assert not any("results/report.html" in STAGES[name]["deps"] for name in STAGES)


def test_colours_do_not_concern_training() -> None:
    watching = [name for name in STAGES if "pictures" in STAGES[name].get("params", [])]
    assert watching == ["eval", "eval_pseudo", "report"]


def test_image_labels_do_not_concern_pseudo() -> None:
    assert "data/image_labels.csv" not in STAGES["pseudo"]["deps"]


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
