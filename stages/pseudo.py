"""Pseudo-masks: CLIP's patch logits of every image, computed once. Reads index, images and CLIP;
writes masks.zarr."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.system.command import command

app = typer.Typer(add_completion=False)


@app.command()
@command
def main(
    index: Annotated[Path, typer.Option(help="Index of the images.")] = Path("data/scenes.json"),
    out: Annotated[Path, typer.Option(help="Store to write.")] = Path("data/masks.zarr"),
    scratch: Annotated[
        Path, typer.Option(help="Folder for partial results.", envvar="CARB_SCRATCH")
    ] = Path("scratch"),
    part: Annotated[
        str | None,
        typer.Option(help="Compute one share only, such as 2/8; a run without it finishes."),
    ] = None,
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Run CLIP once on every image and store its patch logits.

    An interrupted run resumes; if images are added, CLIP runs on these only.

        carb pseudo --out data/masks.zarr
    """
    from pipeline.clip.build_store import Part, build_store
    from pipeline.clip.dense import clip_of
    from pipeline.clip.prompts import resolve_templates
    from pipeline.config.base import Sections, load_sections
    from pipeline.config.clip import ClipParams, check_knows_photos
    from pipeline.config.dataset import DatasetParams
    from pipeline.config.watched_files import watch
    from pipeline.scenes.index import SceneIndex
    from pipeline.system.command import memory_hint
    from pipeline.system.devices import start_fabric
    from pipeline.system.outputs import outputs

    class Settings(Sections):
        dataset: DatasetParams
        clip: ClipParams

    share = None if part is None else Part.parse(part)
    sources = {"--index": index, "--params": params}
    with outputs("pseudo", folders={"--out": out}, sources=sources):
        settings = load_sections(params, Settings)
        scenes = SceneIndex.read(index)
        check_knows_photos(settings.clip, settings.dataset.name)
        clip = clip_of(settings.clip)
        fabric, root = start_fabric(settings.clip.precision), Path(settings.dataset.root)
        with memory_hint(
            "lower the windows of params.yaml: clip.levels, or use a smaller clip.model"
        ):
            build_store(
                fabric,
                clip,
                scenes,
                root=root,
                params=settings.clip,
                templates=resolve_templates(settings.clip.templates),
                out=out,
                scratch=scratch,
                part=share,
            )
        if share is None:
            watch("pseudo", settings, params)


if __name__ == "__main__":
    app()
