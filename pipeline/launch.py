"""The processes of a run: who started them and how many, which one speaks, and what is said when
one is lost. Nothing here is science: any number of processes gives the same result."""

import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, ParamSpec

from pipeline.files import locked
from pipeline.stopping import asked_to_stop

if TYPE_CHECKING:
    from lightning_fabric import Fabric

P = ParamSpec("P")
# How long processes wait for each other: one may have 50 photos more to show CLIP than another. A
# process that stops is noticed at once, by its closed connections and by what started it.
PATIENCE = timedelta(hours=12)
LOST = "another process of this run stopped; its message tells why"
_LAUNCHER = "lightning_fabric.strategies.launchers.subprocess_script"
# How gloo, NCCL and torch's store word that the other end of a connection is gone.
_GONE = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "connection refused",
    "remote process exited",
    "connection was likely closed",
    "socket closed",
)


class Launch(NamedTuple):
    """Who starts the processes of a run, and how many: so many nodes, on each so many processes."""

    launcher: str
    devices: int
    nodes: int

    @property
    def single(self) -> bool:
        """True if there is one process only."""
        return self.devices * self.nodes == 1


def launch_of(environ: Mapping[str, str]) -> Launch:
    """Read off the environment how a run is started.

    ``torchrun`` and SLURM's ``srun`` start all processes and say so. Otherwise one process is
    started, and ``CARB_DEVICES`` says to how many Fabric makes them; also in a batch script of
    SLURM, which runs once however many tasks the job has.

    Raises:
        ValueError: the number of processes makes no sense.
    """
    if "LOCAL_WORLD_SIZE" in environ:
        devices = int(environ["LOCAL_WORLD_SIZE"])
        return Launch("torchrun", devices, int(environ["WORLD_SIZE"]) // devices)
    tasks = int(environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1:
        nodes = int(environ.get("SLURM_STEP_NUM_NODES", "1"))
        if tasks % nodes or "SLURM_NTASKS_PER_NODE" not in environ:
            raise ValueError(
                f"srun started {tasks} tasks on {nodes} nodes; say by --ntasks-per-node how many "
                "each node has, the same number for all"
            )
        return Launch("srun", tasks // nodes, nodes)
    wanted = environ.get("CARB_DEVICES", "1")
    if not wanted.isdecimal() or int(wanted) == 0:
        raise ValueError(
            f"CARB_DEVICES must be the number of processes of a run, 1 or more, got '{wanted}'"
        )
    return Launch("fabric", int(wanted), 1)


def check_gpus(launch: Launch, gpus: int) -> None:
    """Refuse more processes than there are GPUs.

    Raises:
        ValueError: says how to ask for fewer, or for more GPUs.
    """
    asked = {
        "torchrun": "torchrun --nproc_per_node",
        "srun": "srun --ntasks-per-node",
        "fabric": "CARB_DEVICES",
    }[launch.launcher]
    if launch.devices > gpus:
        hint = " or give each node as many by --gres=gpu:N" if launch.launcher == "srun" else ""
        raise ValueError(
            f"{asked} is {launch.devices}, but a process sees {gpus} GPUs here and each needs its "
            f"own; ask for at most {gpus}{hint}"
        )


def make_fabric(launch: Launch, accelerator: str, precision: str) -> "Fabric":
    """Bring a run's processes together, and start them where nobody else does.

    The launcher is named, for Fabric would take a batch script of SLURM for one of many tasks and
    wait for the others.

    Args:
        launch: how the run is started.
        accelerator: ``cpu`` or ``cuda``.
        precision: ``bf16-mixed`` or ``32-true``.
    """
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


def process_number(environ: Mapping[str, str]) -> int:
    """This process's place among those of a run, before Fabric knows it; 0 if it is alone."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return next((int(environ[name]) for name in names if name in environ), 0)


def alone(function: Callable[P, None]) -> Callable[P, None]:
    """Make a stage that cannot share its work run on the first process; the others have no work."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        if process_number(os.environ) == 0:
            function(*args, **kwargs)

    return run


@contextmanager
def locked_by_first(fabric: "Fabric", path: Path) -> Iterator[None]:
    """Keep other runs from writing ``path`` meanwhile; the first process holds the lock for all.

    Raises:
        ValueError: another run holds it.
    """
    with locked(path) if fabric.global_rank == 0 else nullcontext():
        yield


def another_stopped(error: RuntimeError) -> bool:
    """Whether an error says that another process of the run is gone."""
    text = str(error).lower()
    return any(words in text for words in _GONE)


def in_company() -> bool:
    """Whether this process has met others."""
    if "torch" not in sys.modules:  # it takes seconds to import
        return False
    from pipeline.world import world_size

    return world_size() > 1


def leave(code: int) -> NoReturn:
    """End the process; one of several at once: what torch does at the exit waits for the others."""
    if in_company():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code) from None


def keep_quiet(fabric: "Fabric") -> None:
    """Let the first process speak alone, but for warnings."""
    if fabric.global_rank > 0:
        logging.getLogger("carb").setLevel(logging.WARNING)


def watch_parent(launch: Launch) -> None:
    """Let no process outlive the one that started it, even before it has met the others.

    A process that is killed takes the others with it as soon as they wait for it. One that works
    on its own for hours would notice late, and write where a new run already writes.
    """
    if launch.launcher == "torchrun" or int(os.environ.get("LOCAL_RANK", "0")) > 0:
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    if not asked_to_stop():
        print(f"error: {LOST}", file=sys.stderr, flush=True)
    os._exit(2)
