"""A file that holds one record: which format it has, by its content, and the record.

A format is a line of `_FORMATS` and a file beside this one that turns bytes into a `Recording`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from render.errors import InputError, is_text
from render.io import file_digest, text_digest
from render.record import EcgRecord
from render.sources.dicom import is_waveform
from render.sources.edf import BDF_START, EDF_START
from render.sources.mat_file import MAT5_START
from render.sources.recording import Recording, as_record
from render.sources.scp_ecg import is_scp
from render.sources.text_table import NPY_START, looks_like_table

WAVEFORM_SUFFIXES = frozenset((".hea", ".dcm", ".scp", ".xml", ".edf", ".bdf", ".mat", ".csv", ".tsv", ".npy"))
"""How the names of files end that hold a record."""

FORMATS_IN_WORDS = (
    "WFDB (.hea), DICOM, SCP-ECG, HL7 aECG, GE MUSE and Philips XML, EDF, MAT of CinC, CSV and .npy waveforms"
)

_MOST_BYTES = 256 << 20
_XML_START = re.compile(rb"^(\xef\xbb\xbf)?\s*<(\?xml|!--|!DOCTYPE|[A-Za-z])")
_UTF16_XML = (b"\xff\xfe<\0", b"\xfe\xff\0<", b"<\0?\0")
_MAT4_START = re.compile(rb"[\x00-\x34]\x00\x00\x00.{4}.{4}\x00\x00\x00\x00\x04\x00\x00\x00val\x00", re.DOTALL)


@dataclass(frozen=True)
class _Format:
    """source: the records' source. starts: whether a file's bytes are of this format. suffixes: that also tell."""

    source: str
    starts: Callable[[bytes], bool]
    suffixes: tuple[str, ...] = ()


_FORMATS = (
    _Format("dicom", is_waveform),
    _Format("edf", lambda content: content.startswith((EDF_START, BDF_START)) and len(content) >= 256),
    _Format("npy", lambda content: content.startswith(NPY_START)),
    _Format("mat", lambda content: content.startswith(MAT5_START) or bool(_MAT4_START.match(content)), (".mat",)),
    _Format("scp", is_scp, (".scp",)),
    _Format("wfdb", lambda content: False, (".hea",)),
    _Format("xml", lambda content: bool(_XML_START.match(content)) or content.startswith(_UTF16_XML), (".xml",)),
    _Format("csv", looks_like_table, (".csv", ".tsv")),
)


class WaveformFile:
    """The one record of a waveform file, as a source. hertz: its sampling rate, for formats that do not give it.

    Raises `InputError` when the file does not exist or is of no format that can be read.
    """

    def __init__(self, path: str | Path, hertz: float | None = None) -> None:
        self.path = Path(path)
        self._hertz = hertz
        form = waveform_format(_content(self.path), self.path)
        if form is None:
            raise InputError(f"{path}: no waveform file that can be read; {FORMATS_IN_WORDS} can")
        self.name = form

    def __len__(self) -> int:
        return 1

    def digest(self) -> str:
        """Of the file, and the sampling rate that was given."""
        return text_digest(file_digest(self.path), self._hertz)

    def read(self, i: int) -> EcgRecord:
        """The record. Raises `InputError` when the file is damaged or holds no 12-lead record, IndexError beyond 0."""
        if i != 0:
            raise IndexError(i)
        return read_waveform(_content(self.path), self.path, str(self.path), self._hertz)


class WaveformFolder:
    """The waveform files of a folder and its subfolders, sorted by path; a .mat with its header beside is one record.

    A record's id is its path below the folder without the suffix. hertz: as for `WaveformFile`.
    Raises `InputError` when the folder does not exist or holds no waveform file.
    """

    name = "files"

    def __init__(self, folder: str | Path, hertz: float | None = None) -> None:
        self.folder = Path(folder)
        self._hertz = hertz
        if not self.folder.is_dir():
            raise InputError(f"{folder}: no such folder; check the path")
        paths = [Path(parent) / name for parent, _, names in os.walk(self.folder) for name in names]
        headers = {path for path in paths if path.suffix == ".hea"}
        self._names = sorted(
            path.relative_to(self.folder).as_posix()
            for path in paths
            if path.suffix.lower() in WAVEFORM_SUFFIXES
            and not (path.suffix.lower() == ".mat" and path.with_suffix(".hea") in headers)
        )
        if not self._names:
            raise InputError(f"{folder}: no waveform file in this folder or below; {FORMATS_IN_WORDS} can be read")

    def __len__(self) -> int:
        return len(self._names)

    def digest(self) -> str:
        """Of the names and sizes of the files, and the sampling rate that was given."""
        return text_digest(*((name, (self.folder / name).stat().st_size) for name in self._names), self._hertz)

    def record_ids(self) -> list[str]:
        """The names of the files."""
        return [name.removesuffix(Path(name).suffix) for name in self._names]

    def read(self, i: int) -> EcgRecord:
        """Record i. Raises `InputError` when the file is damaged or holds no 12-lead record."""
        path = self.folder / self._names[i]
        if not is_text(self._names[i]):
            raise InputError(f"{path}: the name is no text in UTF-8; rename the file")
        record = read_waveform(_content(path), path, str(path), self._hertz)
        return replace(record, record_id=self._names[i].removesuffix(path.suffix))


def waveform_format(content: bytes, path: Path | None = None) -> str | None:
    """The format of a file, "scp" for example, by its content and, where that is silent, its suffix. None: another."""
    suffix = "" if path is None else path.suffix.lower()
    forms = [form.source for form in _FORMATS if form.starts(content)]
    forms += [form.source for form in _FORMATS if suffix in form.suffixes]
    return forms[0] if forms else None


def read_waveform(content: bytes, path: Path | None, where: str, hertz: float | None = None) -> EcgRecord:
    """The record in a file's bytes.

    path: the file, where there is one: WFDB and MAT read files beside it. where: the file, for messages. hertz: the
    sampling rate, for formats that do not give it. Raises `InputError` for damage and for no 12-lead record.
    """
    form = waveform_format(content, path)
    if form == "wfdb":
        return _wfdb_record(path, where)
    if form == "mat":
        from render.sources.mat_file import read_mat

        recording = read_mat(content, path, where)
        if not isinstance(recording, Recording):
            signal, rate = recording
            return EcgRecord(record_id=Path(where).stem, signal=signal, sampling_rate=rate, source="mat")
        return as_record(recording, where, "mat")
    if form is None:
        raise InputError(f"{where}: no waveform file that can be read; {FORMATS_IN_WORDS} can")
    return as_record(_recording(form, content, where, hertz), where, form)


def _recording(form: str, content: bytes, where: str, hertz: float | None) -> Recording:
    """Each format's reader is loaded when it is needed."""
    if form == "dicom":
        from render.sources.dicom import read_dicom

        return read_dicom(content, where)
    if form == "edf":
        from render.sources.edf import read_edf

        return read_edf(content, where)
    if form == "scp":
        from render.sources.scp_ecg import read_scp

        return read_scp(content, where)
    if form == "xml":
        return _xml_recording(content, where)
    from render.sources.text_table import read_csv, read_npy

    return (read_npy if form == "npy" else read_csv)(content, where, hertz)


def _xml_recording(content: bytes, where: str) -> Recording:
    from render.sources import hl7_aecg, muse_xml, philips_xml
    from render.sources.xml_tree import parse_xml

    root = parse_xml(content, where)
    readers = {
        hl7_aecg.HL7_ROOT: hl7_aecg.read_aecg,
        muse_xml.MUSE_ROOT: muse_xml.read_muse,
        philips_xml.PHILIPS_ROOT: philips_xml.read_philips,
    }
    reader = readers.get(root.tag)
    if reader is None:
        raise InputError(
            f"{where}: XML of type {root.tag[:40]!r}; {', '.join(readers)} can be read (HL7 aECG, GE MUSE, Philips), "
            f"so export another format, or a PDF"
        )
    return reader(root, where)


def _wfdb_record(path: Path | None, where: str) -> EcgRecord:
    from render.sources.wfdb_record import read_wfdb

    if path is None:
        raise InputError(f"{where}: a WFDB header needs its signal files; name the .hea file")
    signal, rate = read_wfdb(path)
    return EcgRecord(record_id=path.stem, signal=signal, sampling_rate=rate, source="wfdb")


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    if len(content) > _MOST_BYTES:
        raise InputError(f"{path}: more than {_MOST_BYTES >> 20} MiB; extract the part to be read")
    return content
