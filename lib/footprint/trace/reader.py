"""Reading a trace as data: a stranger's file is checked before, while and after HDF5 reads it.

A regular file of a bounded size is read into memory at once, and HDF5 gets these bytes. What our
own files never hold is refused: links, external storage, virtual datasets, foreign filters.
"""

import math
import os
import stat
from pathlib import Path

import h5py
import numpy as np
import xarray as xr
from h5py import h5a, h5d, h5f, h5g, h5l, h5o, h5s, h5t, h5z

from footprint import Refused
from footprint.trace import file, schema
from footprint.trace.schema import ATTRS, DIMS, LATER, OPTIONAL_ATTRS, SCHEMA, Variable, variables

LARGEST_B = 256 * 2**20  # a run of hours takes some MB
DENSEST = 1032  # bytes that deflate packs into one, at the very most
FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}
TEXT = h5t.py_create(h5py.string_dtype())  # Python's own objects: bytes
NATIVE = {"U": (TEXT, object), "i": (h5t.NATIVE_INT64, np.int64), "f": (h5t.NATIVE_DOUBLE, float)}
LETTERS = {str: "U", int: "i", float: "f"}
CLASSES = {"U": {h5t.STRING}, "i": {h5t.INTEGER, h5t.ENUM}, "f": {h5t.FLOAT}}
ODD = (  # what HDF5 and NumPy raise for damaged files
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Odd(Exception):
    """What a file has that no trace has, as a sentence without the name of the file."""


def load(path: str | Path) -> xr.DataTree:
    """The checked trace in this file; `Refused` when there is none or it breaks the schema."""
    name = Path(path).name
    opened, size = _opened(path)
    try:
        attrs = _attrs(opened)
        file.check_attrs(attrs, name)
        groups = {group: _columns(opened, group, attrs["kind"], size) for group in _groups(opened)}
    except Odd as fault:
        raise Refused(f"{name}: {fault}") from None
    except ODD as error:
        raise Refused(f"{name} is not a trace in NetCDF ({_first(error)}).") from None
    finally:
        opened.close()
    tree = file.check(file.tree(attrs, groups), name)
    if "checksum" in attrs and attrs["checksum"] != file.checksum(tree):
        raise Refused(f"{name} is damaged: its checksum is not that of its data.")
    return file.complete(tree)


def head(path: str | Path) -> dict:
    """Root attributes of a trace, unchecked; `Refused` where there are none."""
    opened, _ = _opened(path)
    try:
        return _attrs(opened)
    except (Odd, *ODD) as error:
        raise Refused(f"{Path(path).name} is not a trace in NetCDF ({_first(error)}).") from None
    finally:
        opened.close()


def content(path: str | Path, most_B: int = LARGEST_B) -> bytes:
    """The bytes of a regular file of at most this size; `Refused` for links, pipes and devices."""
    path = Path(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Refused(f"There is no file {path}.") from None
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise Refused(f"{path.name} is not read: {reason}.") from None
    try:
        known = os.fstat(handle)
        if not stat.S_ISREG(known.st_mode):
            raise Refused(f"{path.name} is not read: it is no regular file.")
        if known.st_size > most_B:
            raise Refused(
                f"{path.name} has {known.st_size:,} bytes; at most {most_B:,} are allowed."
            )
        with open(handle, "rb", closefd=False) as opened:
            return opened.read()
    finally:
        os.close(handle)


def _opened(path: str | Path) -> tuple[h5f.FileID, int]:
    """The HDF5 file in the bytes of a regular file, and their number."""
    data, name = content(path), Path(path).name
    if not _heaps_end(data):
        raise Refused(f"{name} is not a trace in NetCDF (a heap of texts has no end).")
    try:
        return h5f.open_file_image(data, h5f.ACC_RDONLY), len(data)
    except ODD as error:
        raise Refused(f"{name} is not a trace in NetCDF ({_first(error)}).") from None


def _first(error: BaseException) -> str:
    """First line of an exception, or its name."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _heaps_end(data: bytes) -> bool:
    """Whether each walk over a global heap ends: free space of size 0 keeps HDF5 in it for ever."""
    start = data.find(b"GCOL")
    while start >= 0:
        end = start + int.from_bytes(data[start + 8 : start + 16], "little")
        at = start + 16
        while at + 16 <= min(end, len(data)):
            index = int.from_bytes(data[at : at + 2], "little")
            size = int.from_bytes(data[at + 8 : at + 16], "little")
            if index == 0 and size == 0:
                return False
            at += size if index == 0 else 16 + -(-size // 8) * 8
        start = data.find(b"GCOL", start + 4)
    return True


def _attrs(opened: h5f.FileID) -> dict:
    """The root attributes that the schema knows."""
    found = {}
    for name, (cast, _) in (ATTRS | OPTIONAL_ATTRS).items():
        if h5a.exists(opened, name.encode()):
            attribute = h5a.open(opened, name.encode())
            kind = attribute.get_type().get_class()
            if math.prod(attribute.shape) != 1 or kind not in CLASSES[LETTERS[cast]]:
                raise Odd(f"the attribute {name} is no single {cast.__name__}")
            found[name] = _values(attribute, LETTERS[cast]).reshape(())[()]
    return found


def _groups(opened: h5f.FileID) -> list[str]:
    """The groups at the root, in the order of the schema; `Odd` for anything else there."""
    names = _members(h5g.open(opened, b"/"))
    if unknown := set(names) - set(SCHEMA):
        raise Odd(f"the group {min(unknown)!r} is not in the schema.")
    return [name for name in SCHEMA if name in names]


def _members(group: h5g.GroupID) -> list[str]:
    """Names of what a group holds itself; `Odd` for a link to elsewhere."""
    names = [name.decode() for name in group]
    for name in names:
        if group.links.get_info(name.encode()).type != h5l.TYPE_HARD:
            raise Odd(f"{name} is a link; a trace holds its data itself.")
    return names


def _columns(opened: h5f.FileID, group: str, kind: str, size: int) -> dict[str, np.ndarray]:
    """Values of the variables of a group; `Odd` for what the schema does not know."""
    known, place = variables(group, kind), h5g.open(opened, group.encode())
    names = [name for name in _members(place) if name != DIMS[group]]
    if unknown := set(names) - set(known):
        raise Odd(f"the variable {group}/{min(unknown)} is not in the schema.")
    if missing := set(known) - set(names) - LATER:
        raise Odd(f"the variable {group}/{min(missing)} is missing.")
    return {name: _column(place, group, name, known[name], size) for name in known if name in names}


def _column(place: h5g.GroupID, group: str, name: str, wanted: Variable, size: int) -> np.ndarray:
    """Values of a variable, once its storage and its units are what the schema says."""
    item = h5o.open(place, name.encode())
    if not isinstance(item, h5d.DatasetID):
        raise Odd(f"{group}/{name} is no variable.")
    layout, declared = item.get_create_plist(), math.prod(item.shape) * item.get_type().get_size()
    filters = {layout.get_filter(i)[0] for i in range(layout.get_nfilters())}
    if layout.get_layout() == h5d.VIRTUAL or layout.get_external_count():
        raise Odd(f"{group}/{name} lies in another file; a trace holds its data itself.")
    if filters - FILTERS:
        raise Odd(f"{group}/{name} is packed in an unknown way; deflate is allowed.")
    if declared > DENSEST * size or (declared and wanted.dtype == "U" and declared > size):
        raise Odd(f"{group}/{name} declares {declared:,} bytes, more than the file can hold.")
    if len(item.shape) != 1:
        raise Odd(f"{group}/{name} has {len(item.shape)} dimensions; 1 is allowed.")
    if item.get_type().get_class() not in CLASSES[wanted.dtype]:
        allowed = schema.NUMPY[wanted.dtype].__name__
        raise Odd(f"{group}/{name} holds {item.dtype}; {allowed} is allowed.")
    units = _text(item, "units")
    if wanted.dtype != "U" and units != wanted.units:
        raise Odd(f"{group}/{name} has units {units!r}; {wanted.units!r} is allowed.")
    return _values(item, wanted.dtype)


def _text(item: h5d.DatasetID, name: str) -> str | None:
    """A text among the attributes of a dataset."""
    if not h5a.exists(item, name.encode()):
        return None
    return str(_values(h5a.open(item, name.encode()), "U").reshape(-1)[0])


def _values(item: h5a.AttrID | h5d.DatasetID, letter: str) -> np.ndarray:
    """All values of an attribute or a dataset."""
    stored, dtype = NATIVE[letter]
    values = np.empty(item.shape, dtype)
    if isinstance(item, h5a.AttrID):
        item.read(values, stored)
    elif values.size:
        item.read(h5s.ALL, h5s.ALL, values, stored)
    if letter == "U":
        values = np.array([text.decode() for text in values.flat], object).reshape(item.shape)
    return values
