"""Initial weights of the segmenter's encoder: random, ImageNet's, from a file, or distilled from
CLIP. Reads the index, for distillation also images and CLIP; writes encoder.safetensors."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.system.command import command

app = typer.Typer(add_completion=False)


@app.command()
@command
def main(
    index: Annotated[Path, typer.Option(help="Index of the images.")] = Path("data/scenes.json"),
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("models/encoder.safetensors"),
    scratch: Annotated[Path, typer.Option(help="Folder for partial results.")] = Path("scratch"),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Write the initial weights of the segmenter's encoder.

    The parameter segmenter.encoder_weights chooses them: none, imagenet, a file, or clip.

        carb encoder --out models/encoder.safetensors
    """
    from pipeline.config.base import load_sections
    from pipeline.config.watched_files import watch
    from pipeline.distillation.distil import EncoderSettings, initial_encoder
    from pipeline.scenes.index import SceneIndex
    from pipeline.segmenter.encoder import save_encoder
    from pipeline.system.command import memory_hint
    from pipeline.system.devices import process_number
    from pipeline.system.outputs import outputs

    sources = {"--index": index, "--params": params}
    with outputs("encoder", files={"--out": out}, sources=sources):
        settings = load_sections(params, EncoderSettings)
        with memory_hint("lower params.yaml: distillation.batch_size, views.crop or clip.levels"):
            encoder = initial_encoder(SceneIndex.read(index), settings, scratch=scratch)
        if process_number(os.environ) == 0:
            save_encoder(encoder, out, half=False)
        watch("encoder", settings, params)


if __name__ == "__main__":
    app()
