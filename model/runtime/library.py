"""TensorFlow's C API, found in the installed wheel and opened without importing TensorFlow.

The library is opened with RTLD_LOCAL: seen by everybody, its BoringSSL would take the place of Python's OpenSSL.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_ubyte, c_void_p
from pathlib import Path
from typing import Any

from model.errors import ModelLoadError
from model.proto_subset import build_messages
from model.runtime.errors import UnsupportedModelError, op_error

_NAMES = {"linux": "libtensorflow_cc.so.2", "darwin": "libtensorflow_cc.2.dylib"}


class OpOutput(ctypes.Structure):
    """Represents an output of an operation: TF_Output."""

    _fields_ = [("operation", c_void_p), ("index", c_int)]


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "TF_Version": (c_char_p, []),
    "TF_NewStatus": (c_void_p, []),
    "TF_DeleteStatus": (None, [c_void_p]),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_NewGraph": (c_void_p, []),
    "TF_DeleteGraph": (None, [c_void_p]),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_OperationNumOutputs": (c_int, [c_void_p]),
    "TF_OperationOutputType": (c_int, [OpOutput]),
    "TF_NewOperation": (c_void_p, [c_void_p, c_char_p, c_char_p]),
    "TF_SetAttrType": (None, [c_void_p, c_char_p, c_int]),
    "TF_SetAttrTensor": (None, [c_void_p, c_char_p, c_void_p, c_void_p]),
    "TF_AddInput": (None, [c_void_p, OpOutput]),
    "TF_FinishOperation": (c_void_p, [c_void_p, c_void_p]),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_DeleteSessionOptions": (None, [c_void_p]),
    "TF_SetConfig": (None, [c_void_p, c_char_p, c_size_t, c_void_p]),
    "TF_NewSession": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, c_void_p, c_void_p],
    ),
    "TF_CloseSession": (None, [c_void_p, c_void_p]),
    "TF_DeleteSession": (None, [c_void_p, c_void_p]),
    "TF_SessionRun": (
        None,
        [
            c_void_p, c_void_p, POINTER(OpOutput), POINTER(c_void_p), c_int, POINTER(OpOutput), POINTER(c_void_p),
            c_int, c_void_p, c_int, c_void_p, c_void_p,
        ],
    ),
    "TF_NewTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_void_p, c_size_t, c_void_p, c_void_p]),
    "TF_AllocateTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_size_t]),
    "TF_TensorMaybeMove": (c_void_p, [c_void_p]),
    "TF_DeleteTensor": (None, [c_void_p]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_NumDims": (c_int, [c_void_p]),
    "TF_Dim": (c_int64, [c_void_p, c_int]),
    "TF_TensorByteSize": (c_size_t, [c_void_p]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_LoadLibrary": (c_void_p, [c_char_p, c_void_p]),
    "TF_StringGetSize": (c_size_t, [c_void_p]),
    "TF_StringGetDataPointer": (POINTER(c_ubyte), [c_void_p]),
}  # fmt: skip

_Config = build_messages(
    "model.session",
    {
        "ConfigProto": [
            ("inter_op_parallelism_threads", 5, "int32"),
            ("gpu_options", 6, "GPUOptions"),
            ("allow_soft_placement", 7, "bool"),
        ],
        "GPUOptions": [("allow_growth", 4, "bool")],
    },
)["ConfigProto"]
_CALLERS_THREAD = -1

_opening = threading.Lock()
_adding = threading.Lock()
_opened: list[Any] = []
_loaded_operations: set[str] = set()


def library_path() -> Path:
    """Finds the library of the installed tensorflow wheel; opens nothing.

    Raises:
      UnsupportedModelError: there is none, or this platform is not one that the native runtime knows.
    """
    name = _NAMES.get(sys.platform)
    if name is None or sys.byteorder != "little" or struct.calcsize("P") != 8:
        raise UnsupportedModelError(f"it does not know this platform ({sys.platform})")
    folder = tensorflow_folder()
    path = folder / name
    if not path.is_file():
        raise UnsupportedModelError(f"the installed tensorflow has no {name}")
    return path


def tensorflow_folder() -> Path:
    """Finds the folder of the installed tensorflow package. Raises UnsupportedModelError if there is none."""
    # The search for a package does not run it; one that is imported already may have no spec.
    module = sys.modules.get("tensorflow")
    if module is not None and getattr(module, "__file__", None):
        return Path(str(module.__file__)).parent
    try:
        spec = None if "tensorflow" in sys.modules else importlib.util.find_spec("tensorflow")
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UnsupportedModelError("tensorflow is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def opened() -> Any:
    """Opens the library, once in a process, and gives it with the types of its functions declared.

    Raises:
      UnsupportedModelError: there is none, or it lacks a function.
    """
    if _opened:
        return _opened[0]
    with _opening:
        if not _opened:
            path = library_path()
            # What TensorFlow says at each load is of no use to anybody; warnings and errors are.
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
            try:
                _load_library(path)
                lib = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
                for name, (result, arguments) in _FUNCTIONS.items():
                    function = getattr(lib, name)
                    function.restype, function.argtypes = result, arguments
            except (OSError, AttributeError) as error:
                raise UnsupportedModelError(f"{path.name} cannot be used: {error}") from error
            _opened.append(lib)
        return _opened[0]


def _load_library(path: Path) -> None:
    """Has the system load the library while other threads of Python go on, for which ctypes itself does not care."""
    system = ctypes.CDLL(None)
    system.dlopen.restype, system.dlopen.argtypes = c_void_p, [c_char_p, c_int]
    if not system.dlopen(os.fsencode(path), os.RTLD_NOW | os.RTLD_LOCAL):
        system.dlerror.restype = c_char_p
        raise OSError((system.dlerror() or b"it cannot be loaded").decode("utf-8", "replace"))


def open_ahead() -> None:
    """Opens the library in a thread, for whoever calls `opened` next: it takes a third of a second."""

    def work() -> None:
        with suppress(UnsupportedModelError):  # whoever needs the library is told
            opened()

    # Not a daemon: a process that ends must not do so while its library is half loaded.
    threading.Thread(target=work, name="library loader").start()


@functools.cache
def no_deallocator() -> int:
    """Gives the address of a function that does nothing, for tensors on memory that somebody else owns.

    TensorFlow calls it, from any of its threads, when it needs the memory no more. A function of Python would have to
    take the lock of the interpreter there; TF_Version ignores the arguments and only returns an address.
    """
    address = ctypes.cast(opened().TF_Version, c_void_p).value
    assert address is not None
    return address


class CallStatus:
    """Represents the outcome of calls of the C API. One is made for each call: they are not to be shared
    between threads.
    """

    def __init__(self) -> None:
        self._lib = opened()
        self.pointer: int = self._lib.TF_NewStatus()

    def __enter__(self) -> CallStatus:
        return self

    def __exit__(self, *error: object) -> None:
        self._lib.TF_DeleteStatus(self.pointer)

    def check(self) -> None:
        """Raises OpError, or its class for the code, if the call failed."""
        code = self._lib.TF_GetCode(self.pointer)
        if code:
            message = (self._lib.TF_Message(self.pointer) or b"").decode("utf-8", "replace")
            raise op_error(code, message)


@contextmanager
def session_options(*, callers_thread: bool) -> Iterator[int]:
    """Makes the options of a session; they may be used until the block ends.

    Devices that a graph names and this machine lacks are replaced, and the memory of a GPU is taken as it is needed.
    How many threads an operation may use TensorFlow decides, or the variable TF_NUM_INTRAOP_THREADS.

    Args:
      callers_thread: whether a call runs its operations in its own thread, rather than in those of TensorFlow.
    """
    lib = opened()
    config = _Config(allow_soft_placement=True, inter_op_parallelism_threads=_CALLERS_THREAD if callers_thread else 0)
    config.gpu_options.allow_growth = True
    encoded = config.SerializeToString()
    options = lib.TF_NewSessionOptions()
    try:
        with CallStatus() as status:
            lib.TF_SetConfig(options, encoded, len(encoded), status.pointer)
            status.check()
        yield options
    finally:
        lib.TF_DeleteSessionOptions(options)


def load_operations(paths: tuple[str, ...]) -> None:
    """Loads libraries of further operations, each once in a process.

    Args:
      paths: of the libraries, such as tensorflow-text's `.so` files.

    Raises:
      ModelLoadError: one of them cannot be loaded.
    """
    if not paths:
        return
    lib = opened()
    with _adding:
        for path in paths:
            whole = os.path.realpath(path)
            if whole in _loaded_operations:
                continue
            if not os.path.isfile(whole):
                raise ModelLoadError(f"model.op_libraries: there is no file {path}")
            try:
                with CallStatus() as status:
                    lib.TF_LoadLibrary(os.fsencode(whole), status.pointer)
                    status.check()
            except Exception as error:
                raise ModelLoadError(f"model.op_libraries: {path} cannot be loaded: {error}") from error
            _loaded_operations.add(whole)
