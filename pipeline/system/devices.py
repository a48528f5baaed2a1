"""Devices and processes of a run: who started them, how many, and Lightning Fabric for them."""

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
    from lightning_fabric import Fabric
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch and Fabric take seconds to import; `--help` must not
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


def launcher_of(environ: Mapping[str, str]) -> str:
    """Who started this process: ``torchrun``, ``srun``, or ``fabric`` where neither did.

    Raises:
        ValueError: SLURM's number of tasks is none.
    """
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
    """Read off the environment how a run is started.

    ``torchrun`` and SLURM's ``srun`` start all processes and say so. Otherwise one process is
    started, and ``CARB_DEVICES`` says to how many Fabric makes them; also in a batch script of
    SLURM, which runs once however many tasks the job has.

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
                f"srun started {tasks} tasks on {nodes} nodes; say by --ntasks-per-node how many "
                "each node has, the same number for all"
            )
        return Launch(launcher, tasks // nodes, nodes)
    wanted = environ.get("CARB_DEVICES", "1")
    if not wanted.isdecimal() or int(wanted) == 0:
        raise ValueError(
            f"CARB_DEVICES must be the number of processes of a run, 1 or more, got '{wanted}'"
        )
    return Launch(launcher, int(wanted), 1)


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


def process_number(environ: Mapping[str, str]) -> int:
    """This process's place among those of a run, before Fabric knows it; 0 if it is alone.

    A number that no launcher of this process set, as shells and batch scripts keep it, is none.

    Raises:
        ValueError: a launcher's number is none.
    """
    launcher = launcher_of(environ)
    if launcher == "fabric" and STARTED not in environ:
        return 0
    names = {"torchrun": "RANK", "srun": "SLURM_PROCID", "fabric": "LOCAL_RANK"}
    return _number(environ, names[launcher])


def drop_leftovers(environ: MutableMapping[str, str]) -> None:
    """Remove what other launchers left in the environment; what looks like a place is named."""
    launcher = launcher_of(environ)
    if launcher == "torchrun" or STARTED in environ:
        return
    dropped = {name: environ.pop(name) for name in _names(environ, launcher)}
    places = [
        f"{name}={value}"
        for name, value in dropped.items()
        if name.endswith(("RANK", "PROCID")) and value != "0"
    ]
    if places and launcher == "fabric":
        log.warning(
            "%s in the environment: ignored, for neither torchrun nor srun started this process",
            " ".join(places),
        )


def _names(environ: Mapping[str, str], launcher: str) -> list[str]:
    """Variables that are there and not this launcher's."""
    own = _OF_SRUN if launcher == "srun" else set()
    return sorted(name for name in _VARIABLES - own if name in environ)


def rank_zero_only(function: Callable[P, None]) -> Callable[P, None]:
    """Make a stage that cannot share its work run on the first process; the others say that they
    have no work."""

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


def another_stopped(error: RuntimeError) -> bool:
    """Whether an error says that another process of the run is gone."""
    text = str(error).lower()
    return any(words in text for words in _GONE)


def is_distributed() -> bool:
    """Whether this process has met others."""
    if "torch" not in sys.modules:  # it takes seconds to import
        return False
    from pipeline.system.distributed import world_size

    return world_size() > 1


def exit_process(code: int) -> NoReturn:
    """End the process; one of several at once: what torch does at the exit waits for the others."""
    if is_distributed():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code) from None


def watch_parent(launch: Launch) -> None:
    """Let no process outlive the one that started it, even before it has met the others.

    A process that is killed takes the others with it as soon as they wait for it. One that works
    on its own for hours would notice late, and write where a new run already writes.
    """
    by_fabric = launch.launcher == "fabric" and process_number(os.environ) > 0
    if launch.launcher == "torchrun" or by_fabric:
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    if not stop_requested():
        print(f"error: {LOST}", file=sys.stderr, flush=True)
    os._exit(2)


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


@functools.cache
def pick_precision(wanted: str, device_type: str) -> str:
    """Resolve ``auto`` to the precision that pays on this machine: ``bf16-mixed`` or ``32-true``.

    On a GPU the hardware says whether it multiplies in bfloat16. A CPU is timed: a processor may
    have bfloat16 instructions and still be slower with them.
    """
    import torch

    if wanted != "auto":
        return wanted
    if device_type == "cuda":
        pays = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        pays = _matmul_s(torch.bfloat16) < 0.8 * _matmul_s(torch.float32)
    return "bf16-mixed" if pays else "32-true"


def _matmul_s(dtype: "torch.dtype") -> float:
    """Best time of a matrix product of a small network's size, in seconds."""
    import torch

    a, b = torch.ones(2048, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
    times = []
    for _ in range(15):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return min(times)


def best_device() -> "torch.device":
    """A GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def start_fabric(precision: str) -> "Fabric":
    """Start Lightning Fabric on whatever the machine offers: CPU, one GPU, many GPUs, many nodes.

    How many devices is the launcher's business (``torchrun``, SLURM, or the environment variable
    ``CARB_DEVICES``), never that of ``params.yaml``: it does not change the result. On a CPU each
    run gives the same bytes.

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
    if launch.single:
        return make_fabric(launch, accelerator, pick_precision(precision, accelerator))
    watch_parent(launch)
    fabric = make_fabric(launch, accelerator, "32-true")
    silence_other_ranks(fabric)
    # One process measures, for all: while the others wait, and before anything depends on it.
    picked = pick_precision(precision, accelerator) if fabric.global_rank == 0 else ""
    return make_fabric(launch, accelerator, fabric.broadcast(picked))
