"""Devices and processes of a run: who started them and how many, precision, Lightning Fabric.

The number of devices is the launcher's business (torchrun, SLURM's srun, ``CARB_DEVICES``), never
that of params.yaml. torch and Fabric take seconds to import: ``--help`` must not.
"""

import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, ParamSpec

from pipeline.system.files import locked
from pipeline.system.stop import stop_requested

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
P = ParamSpec("P")
LOST = "another process of this run stopped; its message tells why"
STARTED = "CARB_STARTED"  # set for the processes that Fabric starts: their LOCAL_RANK counts
# What launchers and Fabric read: left over from another run, it would make a stage wait or idle.
_VARIABLES = {
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
}
_OF_SRUN = {"SLURM_PROCID", "MASTER_ADDR", "MASTER_PORT"}
# How long processes wait for each other: one may have 50 photos more for CLIP than another. A
# process that dies is noticed at once, by its closed connections and by its launcher.
TIMEOUT = timedelta(hours=12)


class Launch(NamedTuple):
    """Launcher of a run: its name, processes per node, nodes."""

    launcher: str
    devices: int
    nodes: int

    @property
    def single(self) -> bool:
        """True if there is one process only."""
        return self.devices * self.nodes == 1


def launcher_of(environ: Mapping[str, str]) -> str:
    """Who started this process: ``torchrun``, ``srun``, or ``fabric`` where neither did."""
    if "LOCAL_WORLD_SIZE" in environ and "WORLD_SIZE" in environ:
        return "torchrun"
    if "SLURM_STEP_NUM_TASKS" in environ and _number(environ, "SLURM_STEP_NUM_TASKS") > 1:
        return "srun"
    return "fabric"


def _number(environ: Mapping[str, str], name: str, least: int = 0) -> int:
    """A number that a launcher put into the environment."""
    value = environ.get(name, "")
    if not value.isdecimal() or int(value) < least:
        raise ValueError(
            f"the environment's {name} must be a whole number of at least {least}, got '{value}'; "
            "unset it, or start the processes by torchrun, srun or CARB_DEVICES"
        )
    return int(value)


def launch_of(environ: Mapping[str, str]) -> Launch:
    """Read from the environment how a run is started.

    Without torchrun and srun one process is started, and ``CARB_DEVICES`` says how many Fabric
    makes of it; also in a batch script of SLURM, which runs once however many tasks the job has.

    Raises:
        ValueError: the number of processes makes no sense.
    """
    launcher = launcher_of(environ)
    if launcher == "torchrun":
        devices, world = (_number(environ, name, 1) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        if world % devices:
            raise ValueError(
                f"torchrun started {world} processes, {devices} of them on this node; give each "
                "node the same --nproc_per_node"
            )
        return Launch(launcher, devices, world // devices)
    if launcher == "srun":
        tasks = _number(environ, "SLURM_STEP_NUM_TASKS")
        nodes = _number({"SLURM_STEP_NUM_NODES": "1"} | dict(environ), "SLURM_STEP_NUM_NODES", 1)
        if tasks % nodes or "SLURM_NTASKS_PER_NODE" not in environ:
            raise ValueError(
                f"srun started {tasks} tasks on {nodes} nodes; set --ntasks-per-node, the same "
                "number for all nodes"
            )
        return Launch(launcher, tasks // nodes, nodes)
    wanted = environ.get("CARB_DEVICES", "1")
    if not wanted.isdecimal() or int(wanted) == 0:
        raise ValueError(
            f"CARB_DEVICES must be the number of processes of a run, 1 or more, got '{wanted}'"
        )
    return Launch(launcher, int(wanted), 1)


def check_gpus(launch: Launch, gpus: int) -> None:
    """Refuse more processes than there are GPUs."""
    options = {
        "torchrun": "torchrun --nproc_per_node",
        "srun": "srun --ntasks-per-node",
        "fabric": "CARB_DEVICES",
    }
    if launch.devices > gpus:
        hint = " or give each node as many by --gres=gpu:N" if launch.launcher == "srun" else ""
        raise ValueError(
            f"{options[launch.launcher]} is {launch.devices}, but a process sees {gpus} GPUs here "
            f"and each needs its own; ask for at most {gpus}{hint}"
        )


def process_number(environ: Mapping[str, str]) -> int:
    """Rank of this process before Fabric knows it; 0 if it is alone.

    A rank that no launcher of this process set, as shells and batch scripts keep it, is ignored.
    """
    launcher = launcher_of(environ)
    if launcher == "fabric" and STARTED not in environ:
        return 0
    names = {"torchrun": "RANK", "srun": "SLURM_PROCID", "fabric": "LOCAL_RANK"}
    return _number(environ, names[launcher])


def drop_leftovers(environ: MutableMapping[str, str]) -> None:
    """Remove variables that other launchers left in the environment; ranks among them are named."""
    launcher = launcher_of(environ)
    if launcher == "torchrun" or STARTED in environ:
        return
    kept = _OF_SRUN if launcher == "srun" else set()
    dropped = {name: environ.pop(name) for name in sorted(_VARIABLES - kept) if name in environ}
    ranks = [
        f"{name}={value}"
        for name, value in dropped.items()
        if name.endswith(("RANK", "PROCID")) and value != "0"
    ]
    if ranks and launcher == "fabric":
        log.warning(
            "%s in the environment: ignored, neither torchrun nor srun started this process",
            " ".join(ranks),
        )


def rank_zero_only(function: Callable[P, None]) -> Callable[P, None]:
    """Run a stage that cannot share its work on the first process only; the others say so."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        number = process_number(os.environ)
        if number == 0:
            drop_leftovers(os.environ)
            function(*args, **kwargs)
        else:
            log.info(
                "process %d of a run by %s: nothing to do, the first process does this stage",
                *(number, launcher_of(os.environ)),
            )

    return run


def is_distributed() -> bool:
    """Whether this process has joined others."""
    if "torch" not in sys.modules:
        return False
    from pipeline.system.distributed import world_size

    return world_size() > 1


def exit_process(code: int) -> NoReturn:
    """End the process; one of several at once, for torch would wait for the others at the exit."""
    if is_distributed():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code) from None


def _watch_parent() -> None:
    """End a process that Fabric started when the first one is gone.

    One that computes for hours on its own would notice late, and write where a new run writes.
    torchrun and srun end their processes themselves.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        if not stop_requested():
            print(f"error: {LOST}", file=sys.stderr, flush=True)
        os._exit(2)

    threading.Thread(target=watch, daemon=True).start()


def best_device() -> "torch.device":
    """A GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_precision(wanted: str, device_type: str) -> str:
    """Resolve ``auto``: ``bf16-mixed`` where the hardware multiplies matrices in bfloat16.

    These are GPUs since Ampere, and CPUs with AMX tiles. Other CPUs only emulate it or have
    AVX512-BF16 alone, which was measured to be slower than float32 (torch 2.14, a Xeon without
    AMX: 0.4 to 0.6 times the speed).

    Args:
        wanted: ``auto``, ``bf16-mixed`` or ``32-true``.
        device_type: ``cpu`` or ``cuda``.
    """
    import torch

    if wanted != "auto":
        return wanted
    if device_type == "cuda":
        units = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        units = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return "bf16-mixed" if units else "32-true"


def precision_of(fabric: "Fabric") -> str:
    """The precision that a run computes in, ``bf16-mixed`` or ``32-true``."""
    return str(fabric.strategy.precision.precision)


def start_fabric(precision: str) -> "Fabric":
    """Start Lightning Fabric on what the machine offers: CPU, one GPU, many GPUs, many nodes.

    On a CPU each run gives the same bytes.

    Args:
        precision: ``auto``, ``bf16-mixed`` or ``32-true``.

    Raises:
        ValueError: the number of devices makes no sense here.
    """
    import torch

    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    accelerator, launch = best_device().type, launch_of(os.environ)
    if accelerator == "cuda":
        check_gpus(launch, torch.cuda.device_count())
    if launch.launcher == "fabric" and process_number(os.environ) > 0:
        _watch_parent()
    picked = pick_precision(precision, accelerator)
    fabric = _launch_fabric(launch, accelerator, picked)
    if fabric.world_size > 1:
        from pipeline.system.distributed import check_same

        check_same(
            fabric,
            picked,
            f"precision auto is {picked} on this node and another one on the first; set "
            "params.yaml: clip.precision and train.precision",
        )
    if fabric.global_rank > 0:
        log.setLevel(logging.WARNING)  # the first process reports for all
    return fabric


def _launch_fabric(launch: Launch, accelerator: str, precision: str) -> "Fabric":
    """Join the processes of a run; with ``CARB_DEVICES`` start them.

    The launcher is named, for Fabric would take a batch script of SLURM for one of many tasks and
    wait for the others. Leftovers in the environment are removed, for Fabric believes them.
    """
    drop_leftovers(os.environ)
    if launch.launcher == "fabric" and not launch.single:
        os.environ[STARTED] = "1"
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    logger = logging.getLogger("lightning_fabric")
    logger.setLevel(logging.WARNING)  # its import sets INFO
    launching = "strategies.launchers.subprocess_script"  # reports a child process that died
    logger.getChild(launching).setLevel(logging.INFO)
    environments = {
        "torchrun": TorchElasticEnvironment,
        "srun": SLURMEnvironment,
        "fabric": LightningEnvironment,
    }
    # A static graph allows weights that nothing uses: encoders have stages that some architectures
    # skip. Which are used never changes.
    several = DDPStrategy(timeout=TIMEOUT, static_graph=True)
    fabric = Fabric(
        accelerator=accelerator,
        devices=launch.devices,
        num_nodes=launch.nodes,
        strategy="auto" if launch.single else several,
        plugins=[environments[launch.launcher]()],
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
