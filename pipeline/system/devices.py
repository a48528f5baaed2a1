"""Lightning Fabric of a run: its processes brought together, one lock and one voice for all."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.system.files import locked
from pipeline.system.launch import STARTED, Launch, drop_leftovers

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# How long processes wait for each other: one may have 50 photos more to show CLIP than another. A
# process that stops is noticed at once, by its closed connections and by what started it.
PATIENCE = timedelta(hours=12)
_LAUNCHER = "lightning_fabric.strategies.launchers.subprocess_script"


def make_fabric(launch: Launch, accelerator: str, precision: str) -> "Fabric":
    """Bring a run's processes together, and start them where nobody else does.

    Leftovers in the environment are removed first, for Fabric believes them.

    The launcher is named, for Fabric would take a batch script of SLURM for one of many tasks and
    wait for the others.

    Args:
        launch: how the run is started.
        accelerator: ``cpu`` or ``cuda``.
        precision: ``bf16-mixed`` or ``32-true``.
    """
    drop_leftovers(os.environ)
    if launch.launcher == "fabric" and not launch.single:
        os.environ[STARTED] = "1"
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its import says otherwise
    logging.getLogger(_LAUNCHER).setLevel(logging.INFO)  # tells of a child process that died
    environment = {
        "torchrun": TorchElasticEnvironment,
        "srun": SLURMEnvironment,
        "fabric": LightningEnvironment,
    }[launch.launcher]()
    # A static graph allows weights that nothing uses: encoders have stages that some architectures
    # skip. Which are used never changes.
    several = DDPStrategy(timeout=PATIENCE, static_graph=True)
    fabric = Fabric(
        accelerator=accelerator,
        devices=launch.devices,
        num_nodes=launch.nodes,
        strategy="auto" if launch.single else several,
        plugins=[environment],
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


@contextmanager
def lock_on_rank_zero(fabric: "Fabric", path: Path) -> Iterator[None]:
    """Keep other runs from writing ``path`` meanwhile; the first process holds the lock for all.

    Raises:
        ValueError: another run holds it.
    """
    with locked(path) if fabric.global_rank == 0 else nullcontext():
        yield


def silence_other_ranks(fabric: "Fabric") -> None:
    """Let the first process speak alone, but for warnings."""
    if fabric.global_rank > 0:
        logging.getLogger("carb").setLevel(logging.WARNING)
