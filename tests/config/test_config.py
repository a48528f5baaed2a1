"""Parameter files: the committed ones load; each mistake is answered by one sentence."""

import contextlib
import copy
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.config import Params, load_params
from pipeline.config.base import Sections, Seed, load_sections
from pipeline.config.carb import CarbParams
from tests.helpers import ROOT

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


def write(folder: Path, content: Any) -> Path:
    """A parameter file: bytes and text as they are, anything else as YAML."""
    path = folder / "params.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, "utf-8")
    else:
        YAML().dump(content, path)
    return path


def load(folder: Path, content: Any) -> Params:
    return load_params(write(folder, content))


def refusal(folder: Path, content: Any) -> str:
    with pytest.raises(ValueError, match=r"params\.yaml") as caught:
        load(folder, content)
    return str(caught.value)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_the_committed_parameter_files_load(path: Path) -> None:
    params = load_params(path)
    assert next(iter(params.clip.levels)) == "global"
    with pytest.raises(ValueError, match="frozen"):
        params.carb.tau = 0.5  # type: ignore[misc]


def test_values_arrive_with_their_types(tmp_path: Path) -> None:
    crop = {"views.crop": [96, 192], "views.local_window": [32, 64]}
    words = {"clip.class_prompts": {"car": ["no"]}}  # YAML 1.2: no is a word
    params = load(tmp_path, changed({"train.lr": 0.125, "carb.weight": 1} | crop | words))
    assert (params.train.lr, params.carb.weight, params.views.crop) == (0.125, 1.0, (96, 192))
    assert params.clip.class_prompts == {"car": ["no"]}
    text = (tmp_path / "params.yaml").read_text("utf-8")  # 5e-4 is a number, as for DVC
    assert load(tmp_path, text.replace("lr: 0.125", "lr: 5e-4")).train.lr == 5e-4


def test_a_file_of_an_earlier_version_has_no_share(tmp_path: Path) -> None:
    carb = {"carb.warmup_steps": 450, "carb.warmup_share": DELETE}
    assert load(tmp_path, changed(carb)).carb.warmup_of(600) == 450


class Some(Sections):
    seed: Seed
    carb: CarbParams


def test_a_stage_reads_its_own_sections_strictly_and_no_others(tmp_path: Path) -> None:
    path = write(tmp_path, changed({"eval": 3}))
    assert load_sections(path, Some).carb.queue_size == GOOD["carb"]["queue_size"]
    path = write(tmp_path, changed({"carb.tau": DELETE}))
    with pytest.raises(ValueError, match=r"^params\.yaml: carb\.tau: Field required; add it"):
        load_sections(path, Some)


LOCAL, GLOBAL = GOOD["clip"]["levels"]["local"], GOOD["clip"]["levels"]["global"]
SECTION = "must be a section of 'key: value' lines"
ADD = "Field required; add it (the committed params.yaml shows its meaning)"
NUMBER, QUOTES = "Input should be a valid number", "; write a number without quotes"
WHOLE, BOOL = "Input should be a valid integer", "Input should be a valid boolean"
ROOT_IS = "dataset.root: must be written in full, nothing expands '~' and '$'"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cabr": {}}, "cabr: no such parameter; did you mean 'carb'?"),
    ({"carb.tau": DELETE, "carb.taau": 1}, "carb.taau: no such parameter; did you mean 'tau'?"),
    ({"clip.levels.local.zom": 2}, "clip.levels.local.zom: no such parameter; did you mean 'zoom'"),
    ({"train": {**GOOD["train"], 3: 4}}, "train.3: no such parameter; remove it"),
    ({"carb": DELETE}, f"carb: {ADD}"),
    ({"clip.levels.local.zoom": DELETE}, f"clip.levels.local.zoom: {ADD}"),
    ({"carb.tau": 1.5}, "carb.tau: Input should be less than or equal to 1, got 1.5"),
    ({"carb.tau": float("nan")}, "carb.tau: Input should be less than or equal to 1, got nan"),
    ({"carb.tau": None}, f"carb.tau: {NUMBER}, got null"),
    ({"carb.tau": [1] * 99}, f"carb.tau: {NUMBER}, got [{'1, ' * 18}1,..."),
    ({"carb.weight": True}, f"carb.weight: {NUMBER}, got true"),
    ({"carb.weight": float("inf")}, "carb.weight: Input should be a finite number, got inf"),
    ({"train.lr": "2e-3"}, f"train.lr: {NUMBER}, got '2e-3'{QUOTES}"),
    ({"eval.scales": ["1"]}, f"eval.scales[0]: {NUMBER}, got '1'{QUOTES}"),
    ({"train.steps": 600.0}, f"train.steps: {WHOLE}, got 600.0"),
    ({"train.steps": True}, f"train.steps: {WHOLE}, got true"),
    ({"train.steps": date(2024, 1, 2)}, f"train.steps: {WHOLE}, got 2024-01-02"),
    ({"seed": 2**31}, "seed: Input should be less than 2147483648, got 2147483648"),
    ({"seed": "two\nlines"}, rf"seed: {WHOLE}, got 'two\nlines'; write a whole number without "),
    ({"carb.enabled": "no"}, f"carb.enabled: {BOOL}, got 'no'; write true or false"),
    ({"carb.enabled": 0}, f"carb.enabled: {BOOL}, got 0; write true or false"),
    ({"train.optimizer": "adam"}, "train.optimizer: Input should be 'sgd' or 'adamw', got 'adam'"),
    ({"segmenter.normalisation": 2}, "segmenter.normalisation: Input should be 'imagenet', 'half'"),
    ({"segmenter.normalisation": {}}, "segmenter.normalisation.mean: Field required"),
    ({"dataset.root": ""}, "dataset.root: String should have at least 1 character, got ''"),
    ({"dataset.root": 5}, "dataset.root: Input should be a valid string, got 5"),
    ({"clip.pretrained": b"x"}, "clip.pretrained: Input should be a valid string, got b'x'"),
    ({"dataset.root": "~/photos"}, f"{ROOT_IS}, got '~/photos'"),
    ({"dataset.root": "${HOME}/photos"}, f"{ROOT_IS}, got '${{HOME}}/photos'"),
    ({"views.crop": 64}, "views.crop: Input should be a valid list, got 64"),
    ({"views.crop": [64]}, "views.crop[1]: Field required"),
    ({"views.crop": [64, 0]}, "views.crop[1]: Input should be greater than 0, got 0"),
    (
        {"views.crop": [64] * 3},
        "views.crop: List should have at most 2 items after validation, not",
    ),
    ({"train.min_lr": 1}, "train.min_lr: must be at most train.lr (0.002), got 1.0"),
    ({"views.scale": [2, 1]}, "views.scale: must be [smallest, largest], got [2.0, 1.0]"),
    (
        {"views.crop": [128, 256], "views.local_window": [129, 64]},
        "views.local_window: must fit into views.crop [128, 256], got [129, 64]",
    ),
    ({"carb": [1]}, f"carb: {SECTION}, got [1]"),
    ({"clip.levels.local": 2}, f"clip.levels.local: {SECTION}, got 2"),
    (
        {"clip.class_prompts": {3: ["x"]}},
        "clip.class_prompts.3: Input should be a valid string, got 3",
    ),
    (
        {"clip.class_prompts": {"car": ["auto", ""]}},
        "clip.class_prompts.car[1]: String should have at least 1 character, got ''",
    ),
    (
        {"clip.levels": {"local": LOCAL, "global": GLOBAL}},
        "clip.levels: must start with 'global', got ['local', 'global']",
    ),
    *(
        (
            {"clip.levels": {"global": GLOBAL, name: LOCAL}},
            "clip.levels: must have names of letters, digits, '-' and '_', other than text, "
            f"finished, fused, segmenter, noisy; got '{name}'",
        )
        for name in ("../x", "text", "noisy")
    ),
    (
        {"carb.warmup_steps": None, "carb.warmup_share": None},
        "carb.warmup_steps: this or carb.warmup_share must be set, got neither",
    ),
    ({"clip.words": 1}, "clip.words was renamed to clip.class_prompts; rename it"),
    ({"carb.floor": 1}, "carb.floor was renamed to carb.min_weight; rename it"),
    ({"train.dice": 1}, "train.dice was renamed to train.dice_weight; rename it"),
    ({"warm_start": 1}, "warm_start was renamed to distillation; rename it"),
    ({"dataset.label_noise": 1}, "dataset.label_noise was removed (`python -m bench.label_noise`"),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_parameter_is_answered_by_one_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    found = refusal(tmp_path, changed(changes))
    assert found.startswith(f"params.yaml: {sentence}")
    assert "\n" not in found


@pytest.mark.parametrize("root", [".", "data/", "models", "results", "data/../."])
def test_a_root_that_stages_write_into_is_refused(tmp_path: Path, root: str) -> None:
    for name in (root, str(Path(root).resolve())):
        message = refusal(tmp_path, changed({"dataset.root": name}))
        assert "dataset.root: must be a folder for photos alone, and stages write into" in message


UNREADABLE: list[tuple[str | bytes, str]] = [
    ("train:\n  lr: [1", " in line 2 (expected ',' or ']', but got '<stream end>')"),
    ("seed: 1\nseed: 2", ' in line 2 (found duplicate key "seed" with value "2"'),
    ("seed: 0\n\tlr: 1", " in line 2 (found character '\\t' that cannot start any token)"),
    ("seed: !!python/object:os.system x", " in line 1 (could not determine a constructor for"),
    ("seed: 2001-13-45", " (month must be in 1..12)"),
    (b"\xff\xfe\xff", " (unacceptable character #x00ff: truncated data"),
]


@pytest.mark.parametrize(("content", "place"), UNREADABLE, ids=lambda value: str(value)[:20])
def test_broken_yaml_is_refused_with_its_line_and_fault(
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
    for path, found in ((tmp_path / "absent/params.yaml", "no such file"), (tmp_path, "a folder")):
        with pytest.raises(ValueError, match="copy one of recipes") as caught:
            load_params(path)
        sentence = f"{path}: {found}; copy one of recipes/*.yaml to params.yaml"
        assert str(caught.value) == sentence


SIGNS = [*"{}[]:\n\t'\"#|>", ": ", ", ", "- ", "? ", "\n  "]
MARKS = ["&a", "*a", "<<", "!!", "!!int", "!!set", "!!binary", "%YAML", "---", "0x", "="]
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
