"""Training of the demo's encoder weights: distilled from the demo CLIP's dense features.

As with `segmenter.encoder_weights: clip`, but on scenes of other seeds than the demo's. No labels
are used.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from demo.drawn_dataset import draw_split
from pipeline.config.base import load_sections
from pipeline.datasets import open_dataset
from pipeline.datasets.collect import index_scenes
from pipeline.distillation.distil import EncoderSettings, initial_encoder
from pipeline.segmenter.encoder import save_encoder
from pipeline.system.command import command
from pipeline.system.outputs import outputs

SEED = 777  # the demo uses lower seeds, the demo CLIP 1000 and above
CLOSE = 3.0  # zoom of an extra level for poles, lights and people


def main(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("demo/encoder.safetensors"),
    steps: Annotated[int, typer.Option(min=1, help="Optimizer updates.")] = 3000,
    batch: Annotated[int, typer.Option(min=1, help="Scenes per step.")] = 16,
    scenes: Annotated[int, typer.Option(min=1, help="Scenes to draw.")] = 1200,
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Train the encoder of params.yaml on its CLIP, levels and views."""
    with tempfile.TemporaryDirectory() as folder:
        make_encoder(Path(folder), params, out=out, steps=steps, batch=batch, scenes=scenes)


@command
def make_encoder(
    folder: Path, params: Path, *, out: Path, steps: int, batch: int, scenes: int
) -> None:
    """Draw scenes, train, and write the encoder in float16."""
    written = outputs("train_encoder", files={"--out": out})
    settings = load_sections(params, EncoderSettings)
    draw_split(folder, "train", seed=SEED, count=scenes)
    dataset = open_dataset("demo", folder)
    index = index_scenes(dataset, dataset.scenes("train"))
    close = settings.clip.levels["local"].model_copy(update={"zoom": CLOSE})
    levels = settings.clip.levels | {"close": close}
    settings = settings.model_copy(
        update={
            "clip": settings.clip.model_copy(update={"levels": levels}),
            "dataset": settings.dataset.model_copy(update={"root": str(folder)}),
            "segmenter": settings.segmenter.model_copy(update={"encoder_weights": "clip"}),
            "distillation": settings.distillation.model_copy(
                update={"steps": steps, "batch_size": batch}
            ),
        }
    )
    encoder = initial_encoder(index, settings, scratch=folder)
    with written:
        save_encoder(encoder, out, half=True)


if __name__ == "__main__":
    typer.run(main)
