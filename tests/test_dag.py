"""dvc.yaml says what is true of the code, and imports go one way."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config import load_params
from tests.import_closure import ROOT, import_closure, modules_named_in, with_imports

DAG = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGES: dict[str, Any] = DAG["stages"]
# Which modules may import which: a module imports those of earlier rows and of its own.
LAYERS = [
    [
        "wording",
        "file_faults",
        "stopping",
        "streams",
        "disk",
        "replacing",
        "files",
        "world",
        "launch",
        "fabric",
        "tensors",
        "meters",
        "own_errors",
    ],
    ["output_lists", "output_folders"],
    ["command_options", "fonts"],
    ["config", "config_faults", "config_file", "config_types"],
    ["runtime", "label_spaces", "metrics", "tables", "edges"],
    ["spreadsheets", "label_tables", "watched_files"],
    ["pictures", "places", "store_attributes"],
    ["pickled_labels", "label_files", "scene", "shards", "videos", "photo_names", "photo_files"],
    ["views", "carb", "dice", "prompts", "last_block", "outliers", "schedules"],
    ["towers", "tower_checks", "clip_dense", "processes", "finite"],
    ["checkpoints", "visualise", "panels", "curves", "palettes"],
    ["datasets", "store", "store_probe", "store_writer", "augment", "encoders"],
    ["segmenter_files", "network", "index", "image_labels", "data_remarks"],
    ["pseudo_masks", "windows", "clip_logits", "clip_run", "batches", "inference"],
    ["model_card", "segmenter", "onnx_export"],
    ["clip_features", "proposals"],
    ["training_loss", "training", "evaluation", "submission", "folder_answers", "scored_photos"],
    ["pseudo_pictures", "segmenter_pictures", "previews"],
    [
        "warm_start",
        "training_run",
        "reports",
        "mask_ids",
        "folder_evaluation",
        "data_report",
        "pseudo_report",
    ],
    ["prediction_sources", "prediction_run", "export_run"],
    ["proposal_sheets", "proposal_run"],
    ["run_results", "run_summary", "report_pictures", "html_report"],
]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_lists_exactly_the_files_it_imports(stage: str) -> None:
    listed = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert listed == set(import_closure(stage)), "run `python -m tests.import_closure`"


def test_writing_the_imports_changes_nothing_else() -> None:
    dag = (ROOT / "dvc.yaml").read_text("utf-8")
    assert with_imports(dag) == dag
    assert with_imports(dag.replace("      - pipeline/carb.py\n", "")) == dag


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


def test_another_data_set_adapter_runs_neither_clip_nor_training_again() -> None:
    for stage in ("pseudo", "encoder", "train"):
        assert not any("datasets/" in dep for dep in STAGES[stage]["deps"])


def test_tau_concerns_training_alone_and_the_report_shows_it() -> None:
    told = [name for name in STAGES if "carb" in STAGES[name].get("params", [])]
    assert told == ["train", "report"]


def test_report_is_made_again_when_any_setting_changes() -> None:
    assert STAGES["report"]["params"] == list(load_params(ROOT / "params.yaml").model_dump())


def test_nothing_waits_for_the_report() -> None:
    assert not any("results/report.html" in STAGES[name]["deps"] for name in STAGES)


def test_colours_do_not_concern_training() -> None:
    watching = [name for name in STAGES if "pictures" in STAGES[name].get("params", [])]
    assert watching == ["pseudo", "eval", "eval_pseudo", "report"]


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


def _layer(module: str) -> int:
    name = module.removeprefix("pipeline.").split(".")[0]
    return next(number for number, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "pipeline").rglob("*.py")), ids=lambda path: path.stem
)
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    own = own.removesuffix(".__init__")
    for module in modules_named_in(path):
        assert not module.startswith(("stages", "demo")), f"{own} imports {module}"
        if module != "pipeline" and own != "pipeline":
            assert _layer(module) <= _layer(own), f"{own} imports {module}"


def test_stages_import_no_other_stage() -> None:
    for path in (ROOT / "stages").glob("[!_]*.py"):  # __main__ calls all of them by name
        assert not any(name.startswith("stages.") for name in modules_named_in(path)), path
