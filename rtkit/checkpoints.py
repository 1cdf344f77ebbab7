"""Published network weights, read without executing anything in their files.

The published robust ImageNet networks are pickled dictionaries, and unpickling runs whatever a file asks for. Here a
pickle may name anything, but gets nothing: names become inert placeholders, and only tensors, numbers, strings and
plain containers are ever made of its contents.
"""

import hashlib
import io
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch's file format before 1.6
_DTYPES = {
    **{"FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16},
    **{"BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32},
    **{"ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool},
}
_TENSOR_MAKERS = {("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")}
# What wraps a network in the published files, outermost first; attackers and normalisers hold copies and constants.
_WRAPPERS = re.compile(r"^((module|model)\.)+")
_COPIES = ("attacker.", "normalizer.", "normalize.")
_KEYS = re.compile("model|state_dict|ema|net|weights|params", re.IGNORECASE)  # what weights are kept under
# How files begin that are none of torch's, what they are, and what to do.
_OTHERS = (
    (rb"\Z", "empty: download it again"),
    (rb"PK", "cut short: download it again"),
    (rb"version https://git-lfs", "a Git LFS pointer, which only names the file: fetch that with `git lfs pull`"),
    (rb"(\xef\xbb\xbf)?\s*<", "a web page: download the file by hand in a browser, logged in where that is asked for"),
    (rb".{8}\s*\{", "a safetensors file: import the checkpoint (.ckpt, .pt) that it was made from"),
    (rb"\x08[\1-\x20][\x12\x1a\x22\x28\x32\x3a\x42]", "an ONNX program: import the checkpoint that it was made from"),
    (rb"\x89HDF", "an HDF5 file, as Keras writes: import a checkpoint of torch's"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "a packed file: unpack it, and import what is inside"),
)


class Inert:
    """Stands for anything that a file names: it can be called, built and filled, and does nothing."""

    def __init__(self, *_, **__):
        pass

    def __call__(self, *_, **__):
        return self

    __setstate__ = __setitem__ = append = extend = __call__


def _tensor(values, offset, size, stride, _=None, __=None, facts=None):
    """A view of a storage, which may be filled later; torch refuses one that reaches beyond it."""
    if not isinstance(values, torch.Tensor):
        return Inert()
    view = values.as_strided(size, stride, values.storage_offset() + offset)
    return torch._neg_view(view) if (facts or {}).get("neg") else view  # where it was saved, only the sign was noted


class _Reader(pickle.Unpickler):
    def __init__(self, stream):
        super().__init__(stream)
        self.storages: dict[str, torch.Tensor] = {}  # what the tensors are views of

    def find_class(self, module: str, name: str):
        if (module, name) in _TENSOR_MAKERS:
            return lambda *args: _tensor(*args)  # a new one each time: a file may set attributes of what it is given
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        return Inert

    def persistent_load(self, pid):
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], torch.dtype)):
            return Inert()
        values = self.storages.setdefault(str(pid[2]), torch.empty(pid[4], dtype=pid[1]))
        return values[pid[5][1] :] if len(pid) > 5 and pid[5] else values

    def fill(self, key: str, data: bytes) -> None:
        """Put the bytes of a file into a storage."""
        values = self.storages[key]
        if len(data) < values.nbytes:
            raise ValueError("it is cut short: download it again")
        if len(values):
            values.copy_(torch.frombuffer(bytearray(data), dtype=values.dtype, count=len(values)))


def _zipped(file: zipfile.ZipFile) -> object:
    names = [name for name in file.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise ValueError("it is an archive, and not one of torch's: unpack it, and import what is inside")
    root = names[0].removesuffix("data.pkl")
    if f"{root}byteorder" in file.namelist() and file.read(f"{root}byteorder") != b"little":
        raise ValueError("it was written on a big-endian machine")
    reader = _Reader(io.BytesIO(file.read(names[0])))
    found = reader.load()
    for key in reader.storages:
        reader.fill(key, file.read(f"{root}data/{key}"))
    return found


def _legacy(raw: bytes) -> object:
    what = next((what for begin, what in _OTHERS if re.match(begin, raw[:256], re.DOTALL)), None)
    if what:
        raise ValueError(f"it is {what}")
    stream = io.BytesIO(raw)
    if _Reader(stream).load() != _MAGIC or _Reader(stream).load() != _PROTOCOL:
        raise ValueError("it is no file of torch's")
    _Reader(stream).load()  # facts about the machine
    reader = _Reader(stream)
    found = reader.load()
    for key in _Reader(stream).load():
        size = int.from_bytes(stream.read(8), "little") * reader.storages[str(key)].itemsize
        reader.fill(str(key), stream.read(size))
    return found


def _weights(found) -> dict:
    """The dictionary of weights: what is there under the one name for such, or the whole."""
    if not isinstance(found, dict) or not found:
        raise ValueError("it holds no dictionary of weights; of a whole network save its state_dict()")
    parts = {name: part for name, part in found.items() if isinstance(part, dict) and _KEYS.search(str(name))}
    inside = [name for name, part in parts.items() if any(isinstance(value, torch.Tensor) for value in part.values())]
    if len(inside) > 1:
        raise ValueError(f"it holds weights under {', '.join(map(repr, inside))}; save one to a file of its own")
    return parts[inside[0]] if inside else found


def _plain_name(name: str) -> str | None:
    """A parameter's name without its wrappers; None for copies that an attacker or a normaliser holds."""
    plain = _WRAPPERS.sub("", name)
    return None if plain.startswith(_COPIES) else plain


def read(path: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a published checkpoint; nothing in the file is executed.

    A file that was made for it can still exhaust memory or crash the process; it cannot run anything.

    Accepts what `torch.save` has written since 1.0, pickled by pickle or dill: a dictionary with the weights under
    "model", "state_dict", "state_dict_ema" or the like, or the weights themselves, with or without the prefixes of
    DataParallel and of the robustness library.

    Returns:
        Tensors by the parameter names of the network itself.

    Raises:
        ValueError: the file is no such checkpoint, is damaged, holds several sets of weights, something else than
            tensors among them, or one twice under several prefixes; the message names the file, the entries and a way.
    """
    try:
        raw = path.read_bytes()
        if zipfile.is_zipfile(io.BytesIO(raw)):
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                found = _zipped(archive)
        else:
            found = _legacy(raw)
        out: dict[str, torch.Tensor] = {}
        origin: dict[str, str] = {}
        for name, value in _weights(found).items():
            if not isinstance(name, str) or not isinstance(value, torch.Tensor):
                raise ValueError(f"its entry {name!r} is no tensor")
            plain = _plain_name(name)
            if plain in origin:
                raise ValueError(f"its entries {origin[plain]!r} and {name!r} are both {plain!r}; keep one of them")
            if plain is not None:
                if value.nbytes > value.untyped_storage().nbytes():  # a stride of zero makes terabytes of a few bytes
                    raise ValueError(f"its entry {name!r} has more elements than its storage")
                origin[plain], out[plain] = name, value.clone(memory_format=torch.contiguous_format)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle may fail in any way; none of them may escape unnamed
        damaged = f"it is cut short or damaged, or was not made by torch: download it again ({error})"
        why = error if isinstance(error, ValueError) else damaged
        raise ValueError(f"{path} is no checkpoint that can be read safely: {why}") from error
    return out


def convert(path: Path, folder: Path) -> Path:
    """Read a checkpoint and write it as safetensors, with the name and the sha256 of the original; return its path."""
    from safetensors.torch import save

    from rtkit.store import write_atomically

    state = read(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    stem = path.name if path.suffix[1:].isdigit() else path.stem  # what follows the point of eps0.5 is no suffix
    out = folder / f"{stem}.safetensors"
    write_atomically(out, save(state, {"original": path.name, "sha256": digest}))
    return out
