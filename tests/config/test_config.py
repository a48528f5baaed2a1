"""Parameter files: the committed ones load; each mistake is one sentence."""

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
DELETE = ...  # a singleton with a constant name, for test names


def changed(changes: dict[str, Any]) -> Any:
    """A copy of the committed parameters with some replaced."""
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


def test_the_committed_parameter_files_load() -> None:
    for path in COMMITTED:
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
ADD = "Field required; add it (the committed params.yaml shows its meaning)"
NUMBER, WHOLE = "Input should be a valid number", "Input should be a valid integer"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cabr": {}}, "cabr: no such parameter; did you mean 'carb'?"),
    ({"clip.levels.local.zom": 2}, "clip.levels.local.zom: no such parameter; did you mean 'zoom'"),
    ({"train": {**GOOD["train"], 3: 4}}, "train.3: no such parameter; remove it"),
    ({"carb": DELETE}, f"carb: {ADD}"),
    ({"carb": [1]}, "carb: must be a section of 'key: value' lines, got [1]"),
    ({"clip.levels.local.zoom": DELETE}, f"clip.levels.local.zoom: {ADD}"),
    ({"carb.tau": float("nan")}, "carb.tau: Input should be less than or equal to 1, got nan"),
    ({"carb.tau": None}, f"carb.tau: {NUMBER}, got null"),
    ({"carb.tau": [1] * 99}, f"carb.tau: {NUMBER}, got [{'1, ' * 18}1,..."),
    ({"carb.weight": float("inf")}, "carb.weight: Input should be a finite number, got inf"),
    ({"eval.scales": ["1"]}, f"eval.scales[0]: {NUMBER}, got '1'; write a number without quotes"),
    ({"train.steps": True}, f"train.steps: {WHOLE}, got true"),
    ({"train.steps": date(2024, 1, 2)}, f"train.steps: {WHOLE}, got 2024-01-02"),
    ({"seed": 2**31}, "seed: Input should be less than 2147483648, got 2147483648"),
    ({"seed": "two\nlines"}, rf"seed: {WHOLE}, got 'two\nlines'; write a whole number without "),
    (
        {"carb.enabled": 0},
        "carb.enabled: Input should be a valid boolean, got 0; write true or false",
    ),
    ({"train.optimizer": "adam"}, "train.optimizer: Input should be 'sgd' or 'adamw', got 'adam'"),
    ({"segmenter.normalisation": 2}, "segmenter.normalisation: Input should be 'imagenet', 'half'"),
    ({"segmenter.normalisation": {}}, "segmenter.normalisation.mean: Field required"),
    ({"dataset.root": ""}, "dataset.root: String should have at least 1 character, got ''"),
    ({"dataset.root": "~/photos"}, "dataset.root: '~' and '$' are not expanded, got '~/photos'"),
    ({"views.crop": [64]}, "views.crop[1]: Field required"),
    ({"views.crop": [64, 0]}, "views.crop[1]: Input should be greater than 0, got 0"),
    ({"views.crop": [64] * 3}, "views.crop: List should have at most 2 items after validation"),
    ({"train.min_lr": 1}, "train.min_lr: must be at most train.lr (0.002), got 1.0"),
    ({"views.scale": [2, 1]}, "views.scale: must be [smallest, largest], got [2.0, 1.0]"),
    (
        {"views.crop": [128, 256], "views.local_window": [129, 64]},
        "views.local_window: must fit into views.crop [128, 256], got [129, 64]",
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
            f"finished, fused, segmenter, noisy, relabelled; got '{name}'",
        )
        for name in ("../x", "text", "noisy")
    ),
    (
        {"carb.warmup_steps": None, "carb.warmup_share": None},
        "carb.warmup_steps: this or carb.warmup_share must be set, got neither",
    ),
    ({"clip.words": 1}, "clip.words was renamed to clip.class_prompts; rename it"),
    ({"warm_start": 1}, "warm_start was renamed to distillation; rename it"),
    ({"dataset.label_noise": 1}, "dataset.label_noise was removed (`python -m bench.label_noise`"),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_parameter_is_named_in_one_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    found = refusal(tmp_path, changed(changes))
    assert found.startswith(f"params.yaml: {sentence}")
    assert "\n" not in found


def test_a_root_that_stages_write_into_is_refused(tmp_path: Path) -> None:
    for root in (".", "data/", "data/../.", str(Path("models").resolve())):
        message = refusal(tmp_path, changed({"dataset.root": root}))
        assert message.startswith("params.yaml: dataset.root: stages write into")


UNREADABLE: list[tuple[str | bytes, str]] = [
    ("train:\n  lr: [1", " in line 2 (expected ',' or ']', but got '<stream end>')"),
    ("seed: 1\nseed: 2", ' in line 2 (found duplicate key "seed" with value "2"'),
    ("seed: !!python/object:os.system x", " in line 1 (could not determine a constructor for"),
    ("seed: 2001-13-45", " (month must be in 1..12)"),
    (b"\xff\xfe\xff", " (unacceptable character #x00ff: truncated data"),
]


def test_broken_yaml_is_refused_with_its_line_and_error(tmp_path: Path) -> None:
    for content, place in UNREADABLE:
        message = refusal(tmp_path, content)
        assert message.startswith(f"params.yaml: not readable as YAML{place}")
        assert message.endswith("; correct its syntax")
        assert "\n" not in message


def test_a_file_without_sections_is_refused(tmp_path: Path) -> None:
    for content, found in (("", "null"), ("- 1", "[1]")):
        message = f"params.yaml: must contain sections such as 'train:', got {found}"
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


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    path, message = write(tmp_path, changed({name: value})), ""
    try:
        load_params(path)
    except ValueError as error:
        message = str(error)
    assert not message or message.startswith(f"params.yaml: {name.split('.')[0]}.")
    assert "\n" not in message
