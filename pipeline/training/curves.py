"""Curves of a training run: TSV files for ``dvc plots``."""

from pathlib import Path

from pipeline.system.files import remove, write_json

METRICS = Path("plots/metrics")


class Curves:
    """Curves of a run for ``dvc plots``: one TSV file per metric, and the last step's metrics.

    Args:
        directory: for curves that are part of the result: equal runs give equal bytes.
        speed_directory: for images/s, which differs between runs; no output for DVC.
    """

    def __init__(self, directory: Path, speed_directory: Path) -> None:
        self.directory, self.speed_directory = directory, speed_directory
        for folder in (directory, speed_directory):
            remove(folder)
            (folder / METRICS).mkdir(parents=True)

    def log_step(self, metrics: dict[str, float]) -> None:
        """Add a point to every curve, at the metric ``step``."""
        step, last = int(metrics["step"]), dict[str, float]()
        for name, value in metrics.items():
            speed = name == "images_per_s"
            if name != "step":
                folder = self.speed_directory if speed else self.directory
                file = folder / METRICS / f"{name}.tsv"
                head = "" if file.exists() else f"step\t{name}\n"
                with file.open("a", encoding="utf-8") as handle:
                    handle.write(f"{head}{step}\t{value}\n")
                last |= {} if speed else {name: value}
        write_json(self.directory / "metrics.json", last | {"step": step})
