"""Launchers, devices, precision and Lightning Fabric.

The launcher (torchrun, SLURM's srun, ``CARB_DEVICES``) sets the number of processes, params.yaml
never does. torch and Fabric take seconds to import: ``--help`` must not.
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
LOST = "another process of this run failed; see its error message above"
STARTED = "CARB_STARTED"  # set for the processes that Fabric starts: their LOCAL_RANK counts
# Variables of launchers and Fabric: left over from another run, they make a stage wait or idle.
_VARIABLES = {
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
}
_OF_SRUN = {"SLURM_PROCID", "MASTER_ADDR", "MASTER_PORT"}
# Processes wait this long for each other: one may have 50 photos more for CLIP than another. A
# dead process is noticed at once, by its closed connections and by its launcher.
TIMEOUT = timedelta(hours=12)


class Launch(NamedTuple):
    """How a run was started: launcher, processes per node, nodes."""

    launcher: str
    devices: int
    nodes: int


def launcher_of(environ: Mapping[str, str]) -> str:
    """What started this process: ``torchrun``, ``srun``, or ``fabric`` if neither did."""
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
            f"environment variable {name} must be an integer of at least {least}, got '{value}'; "
            "unset it, or start the processes by torchrun, srun or CARB_DEVICES"
        )
    return int(value)


def launch_of(environ: Mapping[str, str]) -> Launch:
    """Read from the environment how a run was started.

    Without torchrun and srun, Fabric starts ``CARB_DEVICES`` processes; also in a batch script of
    SLURM, which runs once no matter how many tasks the job has.

    Raises:
        ValueError: the numbers of processes and nodes are inconsistent.
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
    return Launch(launcher, _number({"CARB_DEVICES": "1"} | dict(environ), "CARB_DEVICES", 1), 1)


def check_gpus(launch: Launch, gpus: int) -> None:
    """Refuse more processes than there are GPUs."""
    options = {
        "torchrun": "torchrun --nproc_per_node",
        "srun": "srun --ntasks-per-node",
        "fabric": "CARB_DEVICES",
    }
    if launch.devices > gpus:
        hint = " or request more per node by --gres=gpu:N" if launch.launcher == "srun" else ""
        raise ValueError(
            f"{options[launch.launcher]} is {launch.devices}, but a process sees {gpus} GPUs here "
            f"and each needs its own; use at most {gpus}{hint}"
        )


def process_number(environ: Mapping[str, str]) -> int:
    """Rank of this process before Fabric has started.

    Ranks that this process's launcher did not set, but shells and batch scripts keep, are ignored.
    """
    launcher = launcher_of(environ)
    if launcher == "fabric" and STARTED not in environ:
        return 0
    names = {"torchrun": "RANK", "srun": "SLURM_PROCID", "fabric": "LOCAL_RANK"}
    return _number(environ, names[launcher])


def drop_leftovers(environ: MutableMapping[str, str]) -> None:
    """Remove variables that other launchers left in the environment, with a warning for ranks."""
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
    """Run a stage that cannot be distributed on rank zero only; the other processes log that."""

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
    """Whether this is one of several connected processes."""
    if "torch" not in sys.modules:
        return False
    from pipeline.system.distributed import world_size

    return world_size() > 1


def exit_process(code: int) -> NoReturn:
    """End the process; one of several at once, because torch would wait for the others."""
    if is_distributed():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code) from None


def _watch_parent() -> None:
    """End a process that Fabric started when rank zero is gone.

    Otherwise it could compute for hours, and write where a new run writes. torchrun and srun end
    their processes themselves.
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
    """Resolve ``auto``: ``bf16-mixed`` on GPUs since Ampere and on CPUs with AMX tiles.

    Other CPUs emulate bfloat16, or have only AVX512-BF16, which was slower than float32 (0.4 to
    0.6 times the speed with torch 2.14 on a Xeon without AMX).

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
    """The precision of a run, ``bf16-mixed`` or ``32-true``."""
    return str(fabric.strategy.precision.precision)


def start_fabric(precision: str) -> "Fabric":
    """Start Lightning Fabric on the available devices: CPU, one GPU, several GPUs, several nodes.

    On a CPU each run gives the same bytes.

    Args:
        precision: ``auto``, ``bf16-mixed`` or ``32-true``.

    Raises:
        ValueError: the number of processes is impossible here.
    """
    import torch

    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Filling every new tensor with NaN takes a tenth of a training step, and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
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
            f"params.yaml: precision 'auto' is {picked} on this node and another one on the first; "
            "set clip.precision and train.precision",
        )
    if fabric.global_rank > 0:
        log.setLevel(logging.WARNING)  # rank zero reports for all
    return fabric


def _launch_fabric(launch: Launch, accelerator: str, precision: str) -> "Fabric":
    """Join the processes of a run, or start them for ``CARB_DEVICES``.

    The launcher is named explicitly, because Fabric would take a batch script of SLURM for one of
    many tasks and wait for the others.
    """
    drop_leftovers(os.environ)
    single = launch.devices * launch.nodes == 1
    if launch.launcher == "fabric" and not single:
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
    # A static graph allows unused weights: encoders have stages that some architectures skip.
    several = DDPStrategy(timeout=TIMEOUT, static_graph=True)
    fabric = Fabric(
        accelerator=accelerator,
        devices=launch.devices,
        num_nodes=launch.nodes,
        strategy="auto" if single else several,
        plugins=[environments[launch.launcher]()],
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


@contextmanager
def lock_on_rank_zero(fabric: "Fabric", path: Path) -> Iterator[None]:
    """Keep other runs from writing ``path`` during the block; rank zero holds the lock for all.

    Raises:
        ValueError: another run holds it.
    """
    with locked(path) if fabric.global_rank == 0 else nullcontext():
        yield
