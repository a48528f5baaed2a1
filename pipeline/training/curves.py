"""What a training run leaves to look at, through DVCLive: curves and pictures."""

from pathlib import Path

from dvclive.live import Live
from PIL import Image


class _Files(Live):
    """DVCLive without git, DVC and their Studio: it writes files, which stages own.

    Otherwise it needs a commit, makes ``.dvc`` in a git repository that has none (dvclive 3.49),
    and adds the files to git.
    """

    def _init_dvc(self) -> None:
        """Look for no repository."""

    def _init_studio(self) -> None:
        """Send nothing."""
        self._studio_events_to_skip |= {"start", "data", "done"}


class Curves:
    """Curves of a run. Close it at the end: a resumed run starts a new one and replays its figures.

    Args:
        directory: of curves that are part of the result: the same run gives the same bytes.
        speed_directory: of images/s, which no two runs share; outside of what DVC compares.
    """

    def __init__(self, directory: Path, speed_directory: Path) -> None:
        self._live, self._speed = (
            _Files(
                dir=str(path), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False
            )
            for path in (directory, speed_directory)
        )

    def log_step(self, figures: dict[str, float]) -> None:
        """Add a point to every curve; ``step`` among the figures says where."""
        for live in (self._live, self._speed):
            live.step = int(figures["step"])
        for name, value in figures.items():
            if name != "step":
                live = self._speed if name == "images_per_s" else self._live
                live.log_metric(name, value)
        for live in (self._live, self._speed):
            live.make_summary()  # type: ignore[no-untyped-call]

    def log_picture(self, name: str, picture: Image.Image) -> None:
        """Keep a picture, shown by ``dvc plots show``."""
        self._live.log_image(f"{name}.png", picture)

    def close(self) -> None:
        """Write what is left."""
        for live in (self._live, self._speed):
            live.end()  # type: ignore[no-untyped-call]
