"""Non-finite checks: stop training as soon as the loss or the weights are no longer finite."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from torch import Tensor, nn

from pipeline.carb import CarbTerms
from pipeline.system.distributed import gather_keys, raise_on_rank_zero
from pipeline.system.progress import copy_to_cpu_async

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class NonFiniteCheck:
    """Checks the loss of every step: on a GPU one step late, so that the GPU need not wait."""

    def __init__(self, fabric: "Fabric") -> None:
        self.fabric, self.late = fabric, fabric.device.type == "cuda"
        self._waiting: Callable[[], None] | None = None

    def observe(self, terms: CarbTerms, step: int, keys: Sequence[str]) -> None:
        """Check a step's loss, or that of the step before.

        Raises:
            ValueError: it is not finite; names step, images and terms.
        """
        values = {field.name: getattr(terms, field.name).detach() for field in fields(terms)}
        total = copy_to_cpu_async(values["total"])
        before, self._waiting = self._waiting, lambda: self._check(total, values, step, keys)
        if before is not None:
            before()
        if not self.late:
            self.finish()

    def finish(self) -> None:
        """Check the last step; see `observe`."""
        if self._waiting is not None:
            self._waiting()
            self._waiting = None

    def _check(
        self, total: Callable[[], Tensor], values: dict[str, Tensor], step: int, keys: Sequence[str]
    ) -> None:
        if bool(total().isfinite()):
            return
        wrong = [name for name, value in values.items() if not bool(value.isfinite())]
        images = ", ".join(gather_keys(self.fabric, keys))
        raise_on_rank_zero(
            self.fabric,
            f"step {step}: the loss is not finite ({', '.join(wrong)}) on {images}; lower "
            "params.yaml: train.lr, or check these images; the last checkpoint is kept",
        )


def check_weights(fabric: "Fabric", model: nn.Module, step: int, *, lr: str) -> None:
    """Raise ValueError, with the step and the first such weight, if weights are not finite.

    A step may spoil them though its loss is finite. ``lr`` names the parameter to lower.
    """
    for name, value in model.state_dict().items():
        if not bool(value.isfinite().all()):
            raise_on_rank_zero(
                fabric,
                f"step {step}: the weights '{name}' are not finite; lower params.yaml: {lr}; what "
                "was saved before is kept",
            )
