"""dvc.yaml says what is true of the code, and imports go one way."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config.params import load_params
from tests.helpers.import_closure import ROOT, import_closure, modules_named_in, with_imports

DAG = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGES: dict[str, Any] = DAG["stages"]
# Which modules may import which: a module imports those of earlier rows and of its own.
LAYERS = [
    [
        "system.text",
        "system.file_faults",
        "system.stop",
        "system.streams",
        "system.disk",
        "system.replacing",
        "system.files",
        "system.ranks",
        "system.launch",
        "system.devices",
        "system.tensor_files",
        "system.progress",
        "system.own_errors",
    ],
    ["system.output_lists", "system.output_folders"],
    ["deploy.options", "report.fonts"],
    ["config.params", "config.errors", "config.reader", "config.types"],
    ["system.command", "scenes.classes", "metrics", "system.tables", "guided_filter"],
    ["datasets.spreadsheets", "datasets.label_table", "config.watched_files"],
    ["scenes.safe_images", "scenes.paths", "store.plan"],
    [
        "datasets.carb_npy",
        "datasets.label_files",
        "scenes.image_io",
        "scenes.image_labels",
        "deploy.video",
        "scenes.image_names",
        "scenes.image_folder",
    ],
    [
        "views",
        "carb",
        "training.dice",
        "clip.prompts",
        "clip.last_block",
        "training.optimizer",
    ],
    ["clip.towers", "clip.dense", "system.distributed", "training.non_finite"],
    [
        "training.checkpoint",
        "report.drawing",
        "report.panels",
        "training.curves",
        "report.palettes",
    ],
    [
        "datasets",
        "store.reader",
        "store.probe",
        "store.writer",
        "training.augment",
        "segmenter.encoder",
    ],
    [
        "segmenter.saved_files",
        "segmenter.network",
        "scenes.index",
        "datasets.collect",
        "datasets.remarks",
    ],
    [
        "store.masks",
        "clip.windows",
        "clip.logits",
        "clip.build_store",
        "training.crops",
        "segmenter.inference",
    ],
    ["segmenter.card", "segmenter.saved", "deploy.onnx"],
    ["distillation.clip_features", "proposals.propose"],
    [
        "training.losses",
        "training.fit",
        "evaluation.scores",
        "deploy.submission",
        "deploy.predictions",
        "evaluation.photos",
    ],
    ["report.pseudo_mask_panels", "report.segmenter_panels", "report.previews"],
    [
        "distillation.distil",
        "training.run",
        "report.evaluation_files",
        "datasets.mask_ids",
        "deploy.folder",
        "report.dataset_charts",
        "report.pseudo_report",
    ],
    ["deploy.sources", "deploy.predict", "deploy.export"],
    ["proposals.page", "proposals.run"],
    ["report.results", "report.summary", "report.charts", "report.page"],
]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_lists_exactly_the_files_it_imports(stage: str) -> None:
    listed = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert listed == set(import_closure(stage)), "run `python -m tests.helpers.import_closure`"


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
    name = module.removeprefix("pipeline.")
    name = (
        "datasets"
        if name.startswith("datasets.") and not any(name in row for row in LAYERS)
        else name
    )
    return next(number for number, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "pipeline").rglob("*.py")), ids=lambda path: path.stem
)
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    own = own.removesuffix(".__init__")
    for module in modules_named_in(path):
        assert not module.startswith(("stages", "demo")), f"{own} imports {module}"
        named = (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
        if named and path.name != "__init__.py":
            assert _layer(module) <= _layer(own), f"{own} imports {module}"


def test_stages_import_no_other_stage() -> None:
    for path in (ROOT / "stages").glob("[!_]*.py"):  # __main__ calls all of them by name
        assert not any(name.startswith("stages.") for name in modules_named_in(path)), path
