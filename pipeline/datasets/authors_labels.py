"""Safe reader for the CARB authors' ``labels.npy``, a pickle that is never unpickled.

A pickle is a program that may call any function. Here its opcodes are only parsed: those that numpy
writes for a dict of arrays build strings, numbers, lists and records of calls to numpy; any other
opcode, name or array type is refused. Python's unpickler with a list of allowed names would not be
enough: a hostile file could make numpy's constructors build arrays of pointers or of terabytes.
"""

import io
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MARK = object()
RECONSTRUCT, ARRAY, DTYPE = "_reconstruct", "ndarray", "dtype"
_NAMES = {
    ("numpy", "ndarray"): ARRAY,
    ("numpy", "dtype"): DTYPE,
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
}
_PUSHED = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINBYTES", "BINBYTES"}
_PUSHED |= {"SHORT_BINUNICODE", "BINUNICODE"}
_EMPTY: dict[str, Callable[[], object]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: MARK,
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "BUILD": 1}
_TAKES |= {"GLOBAL": 0, "STACK_GLOBAL": 2, "REDUCE": 2}  # items taken from the stack
_TAKE_TO_MARK = ("TUPLE", "APPENDS", "SETITEMS")


@dataclass(frozen=True)
class _Name:
    """An allowed name of numpy; never the object itself."""

    name: str


@dataclass
class _Made:
    """Record of an object that numpy would build."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def read_npy_dict(content: bytes) -> Any:
    """The pickled object in a ``.npy`` file; the values of a dict become arrays.

    Raises:
        Exception: of any kind, if the file is damaged or contains something else.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    shape, _, dtype = reader[version[0]](file)
    if shape != () or dtype.kind != "O":
        raise ValueError(f"it contains an array {shape} of {dtype}, not a pickled dict")
    made = _built(file)
    items = made.state[4] if isinstance(made, _Made) else [made]
    if not isinstance(items, list) or len(items) != 1:
        raise ValueError("it does not contain a single object")
    if not isinstance(items[0], dict):
        return items[0]
    return {key: _value(item) for key, item in items[0].items()}


def _built(file: io.BytesIO) -> Any:
    """What the opcodes build, with records for numpy's objects."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name == "STOP":
            break
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(memo) if argument is None else argument
            memo[place] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name not in ("PROTO", "FRAME"):
            _combine(name, argument, stack)
    (result,) = stack
    return result


def _combine(name: str, argument: Any, stack: list[Any]) -> None:
    """Run an opcode that takes items from the stack."""
    items = []
    if name in _TAKE_TO_MARK:
        while (top := stack.pop()) is not MARK:
            items.append(top)
    elif name in _TAKES:
        items = [stack.pop() for _ in range(_TAKES[name])]
    else:
        raise ValueError(f"it has the opcode {name}, which numpy does not write for arrays")
    items.reverse()
    if name.startswith("TUPLE"):
        stack.append(tuple(items))
    elif name in ("APPEND", "APPENDS"):
        _expect(list, stack[-1]).extend(items)
    elif name in ("SETITEM", "SETITEMS"):
        keys = [_expect(str, key) for key in items[::2]]
        _expect(dict, stack[-1]).update(zip(keys, items[1::2], strict=True))
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        module, asked = (_expect(str, item) for item in items or argument.split(" "))
        if (module, asked) not in _NAMES:
            raise ValueError(f"it asks for {module}.{asked}, which is not an array")
        stack.append(_Name(_NAMES[module, asked]))
    elif name == "REDUCE":
        stack.append(_Made(_expect(_Name, items[0]).name, _expect(tuple, items[1])))
    else:  # BUILD
        _expect(_Made, stack[-1]).state = items[0]


def _expect(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"it has a {type(value).__name__} where a {kind.__name__} must be")
    return value


def _value(item: Any) -> Any:
    """An array of plain numbers from its record; anything else unchanged."""
    if not isinstance(item, _Made):
        return item
    if item.name != RECONSTRUCT or item.arguments[0] != _Name(ARRAY):
        raise ValueError("it builds something other than arrays")
    _, shape, dtype, _, content = item.state
    code = dtype.arguments[0]
    if dtype.name != DTYPE or not re.fullmatch("[bifu][1248]", code):
        raise ValueError(f"it has an array of {code}, which are not numbers")
    order = dtype.state[1] if dtype.state[1] in ("<", ">") else ""
    return np.frombuffer(_expect(bytes, content), np.dtype(order + code)).reshape(shape)
