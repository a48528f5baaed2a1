"""A parameter file from a recipe and the choices of a plan, each with its reason as a comment."""

import logging
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from pipeline.clip.dense import load_clip
from pipeline.config.clip import LOCAL_DIR, check_knows_photos
from pipeline.config.params import load_params
from pipeline.datasets.folder import CLASSES
from pipeline.planning.needs import needs_of
from pipeline.planning.plan import Choice, choose
from pipeline.planning.survey import Survey, survey_folder, this_machine
from pipeline.system.files import atomic_path
from pipeline.system.outputs import outputs

log = logging.getLogger("carb")
WIDTH = 116  # of comments, without their indentation
PARAMS = Path("params.yaml")  # what `dvc repro` reads
HEAD = """Your own photos (docs/tutorial.md); written by `carb init` from recipes/folder.yaml.

{photos}
{machine}

A comment above a value says why it was chosen. Other values are the recipe's, not tuned on any
data set; docs/parameters.md explains each.
"""


def init_params(root: Path, out: Path, recipes: Path, *, clip: Path | None = None) -> None:
    """Write a parameter file for a folder of photos; report what is missing and the next command.

    Args:
        root: the folder.
        out: the file; replaced only if carb wrote it, or git has it.
        recipes: folder of the recipes.
        clip: folder of a CLIP, in place of the recipe's, which is downloaded.

    Raises:
        ValueError: the folder, its tables or the CLIP cannot be used, or ``out`` would be replaced.
    """
    committed = {out} if is_committed(out) else set()
    with outputs("init", files={"--out": out}, sources={"PHOTOS": root}, replaceable=committed):
        recipe, cpu_recipe = (load_params(recipes / f"{n}.yaml") for n in ("folder", "camvid"))
        photos, machine = survey_folder(root), this_machine()
        own = load_clip(f"{LOCAL_DIR}{clip.as_posix()}", None) if clip is not None else None
        choices = choose(photos, machine, recipe, cpu_recipe, own)
        head = HEAD.format(photos=photos.sentence(), machine=machine.sentence())
        text = rendered(recipes / "folder.yaml", choices, head)
        _write(out, text)
    log.info("%s", photos.sentence())
    log.info("%s", machine.sentence())
    kept = f"; git has the earlier one: git checkout {out}" if committed else ""
    log.info("%s: written, with the reason for each chosen value%s", out, kept)
    _report(photos, out)


def is_committed(path: Path) -> bool:
    """Whether git has the file as it is, so that nothing is lost if it is replaced."""
    git = shutil.which("git")
    if git is None or not path.is_file():
        return False
    run = subprocess.run([git, "show", f"HEAD:./{path.name}"], cwd=path.parent, capture_output=True)
    return run.returncode == 0 and run.stdout == path.read_bytes()


def rendered(recipe: Path, choices: Sequence[Choice], head: str) -> str:
    """The recipe as text with the chosen values; the reasons replace its comments on them."""
    yaml = YAML()
    yaml.width = 2 * WIDTH
    content = yaml.load(recipe)
    for choice in choices:
        *sections, key = choice.name.split(".")
        section = content
        for name in sections:
            section = section[name]
        assert key in section, choice.name
        section[key] = _as_flow(choice.value)
        _drop_comment(section, key)
        indent = 2 * len(sections)
        lines = textwrap.fill(choice.reason, WIDTH - indent)
        section.yaml_set_comment_before_after_key(key, before=lines, indent=indent)
    content.yaml_set_start_comment(head)
    text = StringIO()
    yaml.dump(content, text)
    return text.getvalue()


def _as_flow(value: Any) -> Any:
    """A list in one line: ``[288, 512]``."""
    if not isinstance(value, list):
        return value
    flow = CommentedSeq(value)
    flow.fa.set_flow_style()
    return flow


def _drop_comment(section: CommentedMap, key: str) -> None:
    """Remove the comment behind a value; empty lines that follow it stay."""
    token = (section.ca.items.get(key) or [None] * 3)[2]
    if token is not None:
        token.value = token.value[token.value.index("\n") :]


def _write(out: Path, text: str) -> None:
    """Write the file if it is valid.

    Raises:
        ValueError: it is not, for example because stages write into ``dataset.root``.
    """
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, PARAMS.name)
        draft.write_text(text, "utf-8")
        load_params(draft)
    with atomic_path(out) as path:
        path.write_text(text, "utf-8")


def _report(photos: Survey, out: Path) -> None:
    """Log what is missing, and the next command."""
    params = load_params(out)
    if photos.classes is None:
        log.warning(
            "missing: class names; write %s: 'class,words' in the first line, then one class per "
            "line, such as 'vegetation,tree|bush'",
            photos.root / CLASSES[0],
        )
    if not photos.has_labels:
        log.warning("missing: the classes in each photo (image labels); CLIP can propose them")
    if not photos.masks.get("val"):
        log.info("no validation photos with masks: panels are drawn, nothing is scored")
    if weights := [file for need in needs_of(params) for file in need.missing()]:
        log.warning(
            "missing: pretrained weights, which the first run downloads: %s; without a connection: "
            "docs/clusters.md#without-internet",
            ", ".join(weights),
        )
    try:
        check_knows_photos(params.clip, params.dataset.name)
    except ValueError as problem:
        log.warning("%s", problem)
    elsewhere = out.resolve() != PARAMS.resolve()
    if photos.has_labels:
        command = f"cp {out} {PARAMS} && dvc repro" if elsewhere else "dvc repro"
    else:
        command = "carb prepare propose-labels" + (f" --params {out}" if elsewhere else "")
    if photos.classes is None:
        command = f"write {photos.root / CLASSES[0]}, then {command}"
    log.info("next: %s", command)
