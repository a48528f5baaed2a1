"""Stops a training whose figures are no numbers any more: what it learns then is worth nothing."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from torch import Tensor, nn

from pipeline.carb import CarbTerms
from pipeline.system.distributed import gather_keys, raise_on_first_rank
from pipeline.system.progress import copy_to_cpu_async

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class NonFiniteCheck:
    """Looks at the loss of every step without keeping a GPU waiting: at that of a step when the
    next one has been queued. On a CPU at once.

    Args:
        fabric: the devices.
    """

    def __init__(self, fabric: "Fabric") -> None:
        self.fabric, self.late = fabric, fabric.device.type == "cuda"
        self._waiting: Callable[[], None] | None = None

    def see(self, terms: CarbTerms, step: int, keys: Sequence[str]) -> None:
        """Look at a step's loss, or at that of the step before.

        Raises:
            ValueError: it is not finite; names step, photos and terms.
        """
        values = {field.name: getattr(terms, field.name).detach() for field in fields(terms)}
        total = copy_to_cpu_async(values["total"])
        before, self._waiting = self._waiting, lambda: self._check(total, values, step, keys)
        if before is not None:
            before()
        if not self.late:
            self.finish()

    def finish(self) -> None:
        """Look at the last step; see `see`."""
        if self._waiting is not None:
            self._waiting()
            self._waiting = None

    def _check(
        self,
        total: Callable[[], Tensor],
        values: dict[str, Tensor],
        step: int,
        keys: Sequence[str],
    ) -> None:
        if bool(total().isfinite()):
            return
        wrong = [name for name, value in values.items() if not bool(value.isfinite())]
        photos = ", ".join(gather_keys(self.fabric, keys))
        raise_on_first_rank(
            self.fabric,
            f"step {step}: the loss is not finite ({', '.join(wrong)}) on {photos}; lower "
            "params.yaml: train.lr, or look at these photos; the last checkpoint stays",
        )


def check_weights(fabric: "Fabric", model: nn.Module, step: int, *, lr: str) -> None:
    """Refuse to keep weights that are no numbers: a step may spoil them though its loss was one.

    Args:
        fabric: the devices.
        model: its weights and statistics.
        step: updates so far.
        lr: the parameter that is to be lowered.

    Raises:
        ValueError: names the step and the first such weight.
    """
    for name, value in model.state_dict().items():
        if not bool(value.isfinite().all()):
            raise_on_first_rank(
                fabric,
                f"step {step}: the weights '{name}' are not finite; lower params.yaml: {lr}; what "
                "was saved before stays",
            )
