"""Download of the pretrained weights that params.yaml names, on a machine with a connection. Reads
params.yaml; writes the cache of the Hugging Face Hub (HF_HOME)."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.system.command import command
from pipeline.system.devices import rank_zero_only

app = typer.Typer(add_completion=False)


@app.command()
@command
@rank_zero_only
def main(
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Download the weights of CLIP and of the encoder once, so that no stage needs a network.

    On a cluster, run it on a login node, with HF_HOME on a disk that the compute nodes share:

        carb fetch --params recipes/cityscapes.yaml
    """
    import logging

    from huggingface_hub import constants

    from pipeline.config.params import load_params
    from pipeline.planning.needs import fetch_weights

    fetch_weights(load_params(params))
    logging.getLogger("carb").info(
        "all weights load from this machine (HF_HOME=%s); without a network, set HF_HUB_OFFLINE=1",
        constants.HF_HOME,
    )


if __name__ == "__main__":
    app()
