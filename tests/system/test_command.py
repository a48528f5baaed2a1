"""Commands: one-sentence errors, missing memory, precision, Fabric."""

import pytest
import torch
import typer
from typer.testing import CliRunner

from pipeline.system.command import command, memory_hint
from pipeline.system.devices import pick_precision, start_fabric


@pytest.mark.parametrize(
    "error",
    [ValueError("carb.tau must be\n  small"), FileNotFoundError(2, "No such file", "x.csv")],
)
def test_a_users_error_is_one_line_and_exit_code_2(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    @command
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert caught.value.__suppress_context__
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"error: {' '.join(str(error).split())}\n"


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("x"), AssertionError()])
def test_our_own_error_keeps_its_traceback(error: Exception) -> None:
    @command
    def main() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        main()
    assert caught.value is error


def test_a_command_is_a_command_line_with_its_own_options_and_result() -> None:
    @command
    def main(count: int = 3) -> int:
        """Count."""
        if count < 0:
            raise ValueError("count must not be negative")
        return count

    assert main(count=4) == 4
    app = typer.Typer(add_completion=False)
    app.command()(main)
    result = CliRunner().invoke(app, ["--count", "-1"])
    assert (result.exit_code, result.output) == (2, "error: count must not be negative\n")
    assert CliRunner().invoke(app, ["--count", "many"]).exit_code == 2
    assert CliRunner().invoke(app, ["--count", "1"]).exit_code == 0


def test_missing_memory_names_what_to_lower() -> None:
    message = r"^out of memory \(.*can't allocate memory.*\); lower train.batch_size$"
    with pytest.raises(ValueError, match=message), memory_hint("lower train.batch_size"):
        torch.empty(2**50)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
    ],
)
def test_every_kind_of_missing_memory_is_one_line(error: Exception) -> None:
    with pytest.raises(ValueError, match=r"^out of memory \([^\n]*\); wait$"), memory_hint("wait"):
        raise error


def test_other_errors_are_not_about_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), memory_hint("wait"):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize(("units", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_bfloat16_where_the_hardware_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, units: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: units)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units, raising=False)
    for device in ("cuda", "cpu"):
        assert pick_precision("auto", device) == expected
        assert [pick_precision(name, device) for name in ("bf16-mixed", "32-true")] == [
            *("bf16-mixed", "32-true")
        ]


def test_fabric_starts_on_this_machine_and_is_deterministic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CARB_DEVICES", raising=False)
    fabric = start_fabric("32-true")
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
