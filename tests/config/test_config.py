"""Parameter files: the committed ones load; each mistake is answered by one sentence."""

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.config.params import Params, load_params

ROOT = Path(__file__).parents[2]
COMMITTED = [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]
GOOD = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
DELETE = ...  # a singleton whose name does not change: it is part of names of tests


def changed(changes: dict[str, Any]) -> Any:
    """The committed parameters with some replaced; None of it shared with the original."""
    content = copy.deepcopy(GOOD)
    for name, value in changes.items():
        *sections, last = name.split(".")
        place = content
        for section in sections:
            place = place[section]
        if value is DELETE:
            del place[last]
        else:
            place[last] = value
    return content


def load(folder: Path, content: Any) -> Params:
    """Load ``content`` from a file: bytes and text as they stand, anything else as YAML."""
    path = folder / "params.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, "utf-8")
    else:
        YAML().dump(content, path)
    return load_params(path)


def refusal(folder: Path, content: Any) -> str:
    with pytest.raises(ValueError, match=r"params\.yaml") as caught:
        load(folder, content)
    return str(caught.value)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_the_committed_parameter_files_load(path: Path) -> None:
    params = load_params(path)
    assert next(iter(params.clip.levels)) == "global"


def test_values_arrive_with_their_types(tmp_path: Path) -> None:
    crop = {"views.crop": [96, 192], "views.local_window": [32, 64]}
    params = load(tmp_path, changed({"train.lr": 5e-4, "carb.weight": 1} | crop))
    assert (params.train.lr, params.carb.weight, params.views.crop) == (5e-4, 1.0, (96, 192))
    assert load(tmp_path, changed({"carb.weight": None})).carb.weight is None


def test_a_number_with_an_exponent_and_no_point_is_a_number_as_for_dvc(tmp_path: Path) -> None:
    load(tmp_path, changed({"train.lr": 0.125}))
    text = (tmp_path / "params.yaml").read_text("utf-8")
    assert load(tmp_path, text.replace("lr: 0.125", "lr: 5e-4")).train.lr == 5e-4


def test_yaml_12_leaves_no_alone(tmp_path: Path) -> None:
    assert load(tmp_path, changed({"clip.class_prompts": {"car": ["no"]}})).clip.class_prompts == {
        "car": ["no"]
    }


def test_a_file_of_an_earlier_version_has_no_share(tmp_path: Path) -> None:
    carb = {"carb.warmup_steps": 450, "carb.warmup_share": DELETE}
    assert load(tmp_path, changed(carb)).carb.warmup_of(600) == 450


def test_parameters_are_read_only() -> None:
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.carb.tau = 0.5  # type: ignore[misc]


TWO = "must be a list of 2 values, each a whole number that is above 0 and at most 32768"
SECTION = "must be a section of 'key: value' lines"
COUNT = "must be a whole number that is above 0 and below 2147483648"
SEED = "must be a whole number that is at least 0 and below 2147483648"
LOCAL = GOOD["clip"]["levels"]["local"]
GLOBAL = GOOD["clip"]["levels"]["global"]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cabr": {}}, "cabr is no parameter; did you mean 'carb'?"),
    ({"carb.taau": 1}, "carb.taau is no parameter; did you mean 'tau'?"),
    ({"carb.tau": DELETE, "carb.taau": 1}, "carb.taau is no parameter; did you mean 'tau'?"),
    ({"clip.levels.local.zom": 2}, "clip.levels.local.zom is no parameter; did you mean 'zoom'?"),
    ({"train.zzz": 2}, "train.zzz is no parameter; remove it"),
    ({"train": {**GOOD["train"], 3: 4}}, "train.3 is no parameter; remove it"),
    ({"carb": DELETE}, "carb is missing; add it (the committed params.yaml shows its meaning)"),
    (
        {"clip.levels.local.zoom": DELETE},
        "clip.levels.local.zoom is missing; add it (the committed params.yaml shows its meaning)",
    ),
    ({"carb.tau": 1.5}, "carb.tau must be between 0 and 1, got 1.5"),
    ({"carb.tau": -1}, "carb.tau must be between 0 and 1, got -1"),
    ({"carb.tau": "high"}, "carb.tau must be between 0 and 1, got 'high'"),
    ({"carb.tau": float("nan")}, "carb.tau must be between 0 and 1, got nan"),
    ({"carb.tau": None}, "carb.tau must be between 0 and 1, got null"),
    ({"carb.weight": "auto"}, "carb.weight must be null or at least 0, got 'auto'"),
    ({"carb.weight": True}, "carb.weight must be null or at least 0, got true"),
    ({"carb.weight": float("inf")}, "carb.weight must be null or at least 0, got inf"),
    ({"train.lr": 0}, "train.lr must be above 0, got 0"),
    ({"augment.hue": 0.7}, "augment.hue must be between 0 and 0.5, got 0.7"),
    ({"augment.contrast": 1}, "augment.contrast must be at least 0 and below 1, got 1"),
    ({"train.steps": 0}, f"train.steps {COUNT}, got 0"),
    ({"train.steps": 1.5}, f"train.steps {COUNT}, got 1.5"),
    ({"train.steps": True}, f"train.steps {COUNT}, got true"),
    (
        {"train.workers": -1},
        "train.workers must be a whole number that is between 0 and 256, got -1",
    ),
    ({"seed": 2**31}, f"seed {SEED}, got 2147483648"),
    ({"seed": "two\nlines"}, f"seed {SEED}, got 'two\\nlines'"),
    ({"train.local_term": "maybe"}, "train.local_term must be true or false, got 'maybe'"),
    ({"train.optimizer": "adam"}, "train.optimizer must be 'sgd' or 'adamw', got 'adam'"),
    (
        {"clip.precision": "bf16"},
        "clip.precision must be 'auto', 'bf16-mixed' or '32-true', got 'bf16'",
    ),
    ({"dataset.root": ""}, "dataset.root must be text that is not empty, got ''"),
    ({"dataset.root": 5}, "dataset.root must be text that is not empty, got 5"),
    (
        {"dataset.image_labels": 5},
        "dataset.image_labels must be null or text that is not empty, got 5",
    ),
    ({"segmenter.arch": None}, "segmenter.arch must be text, got null"),
    ({"views.crop": 64}, f"views.crop {TWO}, got 64"),
    ({"views.crop": [64]}, f"views.crop {TWO}, got [64]"),
    ({"views.crop": [64, 0]}, f"views.crop {TWO}, got [64, 0]"),
    (
        {"clip.levels.local.window": [64, 64, 64]},
        f"clip.levels.local.window {TWO}, got [64, 64, 64]",
    ),
    (
        {"views.scale": [1, "x"]},
        "views.scale must be a list of 2 values, each between 0.05 and 16, got [1, 'x']",
    ),
    (
        {"train.lr": 1e-3, "train.min_lr": 2e-3},
        "train.min_lr must be at most train.lr (0.001), got 0.002",
    ),
    ({"views.scale": [2, 1]}, "views.scale must be [smallest, largest], got [2.0, 1.0]"),
    (
        {"views.crop": [128, 256], "views.local_window": [129, 64]},
        "views.local_window must fit into views.crop [128, 256], got [129, 64]",
    ),
    ({"carb": None}, f"carb {SECTION}, got null"),
    ({"carb": [1]}, f"carb {SECTION}, got [1]"),
    ({"clip.levels.local": 2}, f"clip.levels.local {SECTION}, got 2"),
    ({"clip.class_prompts": None}, f"clip.class_prompts {SECTION}, got null"),
    ({"clip.class_prompts": {3: ["x"]}}, f"clip.class_prompts {SECTION}, got {{3: ['x']}}"),
    (
        {"clip.class_prompts": {"car": "auto"}},
        "clip.class_prompts.car must be a list that is not empty, each value text that is not "
        "empty, "
        "got 'auto'",
    ),
    (
        {"clip.class_prompts": {"car": ["auto", ""]}},
        "clip.class_prompts.car must be a list that is not empty, each value text that is not "
        "empty, "
        "got ['auto', '']",
    ),
    ({"clip.levels": {}}, "clip.levels must start with 'global', got []"),
    (
        {"clip.levels": {"local": LOCAL, "global": GLOBAL}},
        "clip.levels must start with 'global', got ['local', 'global']",
    ),
    (
        {"clip.levels": {"global": GLOBAL, "../x": LOCAL}},
        "clip.levels must have names of letters, digits, '-' and '_', not 'text', "
        "'finished' or 'fused', got '../x'",
    ),
    (
        {"clip.levels": {"global": GLOBAL, "text": LOCAL}},
        "clip.levels must have names of letters, digits, '-' and '_', not 'text', "
        "'finished' or 'fused', got 'text'",
    ),
    (
        {"clip.levels": {"global": GLOBAL, "fused": LOCAL}},
        "clip.levels must have names of letters, digits, '-' and '_', not 'text', "
        "'finished' or 'fused', got 'fused'",
    ),
    ({"carb.tau": [1] * 99}, f"carb.tau must be between 0 and 1, got [{'1, ' * 18}1,..."),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_parameter_is_answered_by_one_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    assert refusal(tmp_path, changed(changes)) == f"params.yaml: {sentence}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("clip.words", "renamed to clip.class_prompts; rename it"),
        ("carb.floor", "renamed to carb.min_weight; rename it"),
        ("train.dice", "renamed to train.dice_weight; rename it"),
        ("warm_start", "renamed to distillation; rename it"),
        (
            "dataset.label_noise",
            "removed (`python -m bench.label_noise` writes noisy labels); delete it",
        ),
    ],
)
def test_a_key_of_an_earlier_version_is_told_its_new_name(tmp_path, old, new):
    assert refusal(tmp_path, changed({old: 1})) == f"params.yaml: {old} was {new}"


UNREADABLE: list[tuple[str | bytes, str]] = [
    ("train:\n  lr: [1", " in line 2 (expected ',' or ']', but got '<stream end>')"),
    ("seed: 1\nseed: 2", ' in line 2 (found duplicate key "seed" with value "2"'),
    ("seed: 0\n\tlr: 1", " in line 2 (found character '\\t' that cannot start any token)"),
    ("seed: !!python/object:os.system x", " in line 1 (could not determine a constructor for"),
    ("seed: 2001-13-45", " (month must be in 1..12)"),
    (b"\xff\xfe\xff", " (unacceptable character #x00ff: truncated data"),
]


@pytest.mark.parametrize(("content", "place"), UNREADABLE, ids=lambda value: str(value)[:20])
def test_broken_yaml_is_told_with_its_line_and_fault(
    tmp_path: Path, content: str | bytes, place: str
) -> None:
    message = refusal(tmp_path, content)
    assert message.startswith(f"params.yaml: not readable as YAML{place}")
    assert message.endswith("; correct its syntax")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "found"), [("", "null"), ("- 1", "[1]"), ("a text", "'a text'")]
)
def test_a_file_without_sections_is_refused(tmp_path, content, found):
    message = f"params.yaml: must hold sections such as 'train:', got {found}"
    assert refusal(tmp_path, content) == message


def test_a_missing_file_points_to_the_recipes(tmp_path: Path) -> None:
    for path, found in (
        (tmp_path / "absent" / "params.yaml", "no such file"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(ValueError, match="copy one of recipes") as caught:
            load_params(path)
        sentence = f"{path}: {found}; copy one of recipes/*.yaml to params.yaml"
        assert str(caught.value) == sentence


SIGNS = [*"{}[]:\n\t'\"#|>", ": ", ", ", "- ", "? ", "\n  "]
MARKS = ["&a", "*a", "<<", "!!", "!!int", "!!set", "!!binary", "%YAML", "---", "0x", "="]
MARKS += ["2001-01-01"]
NAMED = ["seed", "carb", "clip", "levels", "global", "train", "lr", "5e-4", "null", "true", "~"]
PIECES = st.sampled_from(SIGNS + MARKS + NAMED) | st.text(max_size=3)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=25).map("".join))
def test_random_text_raises_nothing_but_value_errors(tmp_path: Path, text: str) -> None:
    with contextlib.suppress(ValueError):
        load(tmp_path, text.encode("utf-8", "surrogatepass"))


NAMES = [f"{name}.{key}" for name, part in GOOD.items() if isinstance(part, dict) for key in part]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["global", ""])
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(LEAVES | st.sampled_from(["global", "zoom", "local"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(NAMES), TREES)
def test_any_value_loads_or_its_section_is_named_in_one_line(
    tmp_path: Path, name: str, value: object
) -> None:
    section = name.split(".")[0]
    try:
        answer = f"params.yaml: {section}.{load(tmp_path, changed({name: value})).seed}"
    except ValueError as error:
        answer = str(error)
    assert answer.startswith(f"params.yaml: {section}.")
    assert "\n" not in answer
