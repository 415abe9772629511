"""Waveform files of every format, written by small writers here, are read back to within a step; damage is refused."""

from __future__ import annotations

import base64
import binascii
import io
import struct
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ecg_vlm.cli import main
from ecg_vlm.images import open_page
from render.errors import InputError
from render.record import LEADS, EcgRecord
from render.sources.lead_names import in_lead_order, standard_lead
from render.sources.philips_xml import decode_xli
from render.sources.registry import open_source
from render.sources.scp_ecg import DEFAULT_TABLE
from render.sources.waveform_file import WaveformFile, read_waveform, waveform_format
from render.sources.wfdb_record import read_wfdb

Signal = NDArray[np.float64]
Steps = NDArray[np.int64]
WriteWfdb = Callable[..., Path]

STEP_MV = 0.005  # 5 µV, the step of most electrocardiographs
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.fixture(scope="module")
def steps(ecg_mv: Signal) -> Steps:
    """(12, 2000): four seconds at 500 Hz whose limb leads follow from I and II, in steps of 5 µV."""
    values = np.round(ecg_mv[:, :2000] / STEP_MV).astype(np.int64)
    one, two = values[0] * 2, values[1] * 2  # even, so that halves are whole
    values[:6] = one, two, two - one, -(one + two) // 2, one - two // 2, two - one // 2
    return values


def millivolts(steps: Steps) -> Signal:
    return np.asarray(steps * STEP_MV, dtype=np.float64)


def agrees(record: EcgRecord, reference: Signal, tolerance: float = 1e-4) -> bool:
    return record.signal.shape == reference.shape and float(np.abs(record.signal - reference).max()) <= tolerance


# ---- names of leads


@pytest.mark.parametrize(
    ("name", "lead", "sign"),
    [
        ("I", "I", 1), (" aVR ", "aVR", 1), ("AVR", "aVR", 1), ("avf", "aVF", 1), ("v3", "V3", 1), ("Lead II", "II", 1),
        ("DI", "I", 1), ("DIII", "III", 1), ("D2", "II", 1), ("D I", "I", 1), ("C1", "V1", 1), ("c6", "V6", 1),
        ("MDC_ECG_LEAD_AVL", "aVL", 1), ("MDC_ECG_LEAD_V4", "V4", 1), ("I ECG", "I", 1), ("ECG V2", "V2", 1),
        ("EKG-I", "I", 1), ("ECG.aVF", "aVF", 1), ("V5 (mV)", "V5", 1), ("derivação II", "II", 1),
        ("MDC_ECG_ELEC_POTL_V1", "V1", 1), ("V-1", "V1", 1), ("-aVR", "aVR", -1), ("−aVR", "aVR", -1),
        ("Lead -aVR", "aVR", -1), ("- AVR", "aVR", -1), ("ECG -aVR", "aVR", -1),
    ],
)  # fmt: skip
def test_names_of_leads(name: str, lead: str, sign: int) -> None:
    assert standard_lead(name) == (lead, sign)


@pytest.mark.parametrize("name", ["", "MLII", "RESP", "V7", "V4R", "ABP", "IV", "C7", "ECG", "aV", "I II", "x" * 500])
def test_names_that_are_no_lead(name: str) -> None:
    assert standard_lead(name) is None


@pytest.mark.parametrize("pair", [("I", "II"), ("I", "III"), ("II", "III")])
def test_limb_leads_follow_from_two(steps: Steps, pair: tuple[str, str]) -> None:
    names = [*pair, *LEADS[6:]]
    signal = in_lead_order(names, millivolts(steps)[[LEADS.index(name) for name in names]], "x")
    assert np.abs(signal - millivolts(steps)).max() < 1e-6


def test_missing_leads_are_named(steps: Steps) -> None:
    with pytest.raises(InputError, match="lead II, III, aVR, aVL, aVF missing"):
        in_lead_order(["I", *LEADS[6:]], millivolts(steps)[[0, *range(6, 12)]], "x")
    with pytest.raises(InputError, match="lead V6 missing"):
        in_lead_order(LEADS[:-1], millivolts(steps)[:-1], "x")
    with pytest.raises(InputError, match="two channels are named V1"):
        in_lead_order([*LEADS, "C1"], millivolts(steps)[[*range(12), 6]], "x")


# ---- WFDB as people have it


OTHER_NAMES = {
    "brazil": ["DI", "DII", "DIII", "AVR", "AVL", "AVF", *LEADS[6:]],
    "mdc": [f"MDC_ECG_LEAD_{lead.upper()}" for lead in LEADS],
    "c1c6": [*LEADS[:6], *(f"C{i}" for i in range(1, 7))],
    "ecg_suffix": [f"{lead} ECG" for lead in LEADS],
    "ecg_prefix": [f"ECG {lead}" for lead in LEADS],
    "lower": [lead.lower() for lead in LEADS],
}


@pytest.mark.parametrize("case", OTHER_NAMES)
def test_wfdb_with_other_names(write_wfdb: WriteWfdb, steps: Steps, tmp_path: Path, case: str) -> None:
    header = write_wfdb(tmp_path, "x", millivolts(steps), leads=OTHER_NAMES[case])
    assert agrees(open_source(str(header)).read(0), millivolts(steps), 6e-4)


def test_wfdb_of_eight_leads(write_wfdb: WriteWfdb, steps: Steps, tmp_path: Path) -> None:
    rows = [LEADS.index(lead) for lead in EIGHT]
    header = write_wfdb(tmp_path, "x", millivolts(steps)[rows], leads=EIGHT)
    assert agrees(open_source(str(header)).read(0), millivolts(steps), 2e-3)


def test_minus_avr_gets_its_sign_back(write_wfdb: WriteWfdb, steps: Steps, tmp_path: Path) -> None:
    values = millivolts(steps)
    values[3] *= -1
    header = write_wfdb(tmp_path, "x", values, leads=[*LEADS[:3], "-aVR", *LEADS[4:]])
    signal, _ = read_wfdb(header)
    assert np.abs(signal - millivolts(steps)).max() < 6e-4
    assert np.abs(signal[0] + signal[1] + 2 * signal[3]).max() < 3e-3


@pytest.mark.parametrize("gain", ["1000/mmHg", "1000/NU", "0/mV", "1e-300/mV"])
def test_further_channels_may_be_in_any_unit(write_wfdb: WriteWfdb, steps: Steps, tmp_path: Path, gain: str) -> None:
    header = write_wfdb(tmp_path, "x", millivolts(steps)[[*range(12), 0]], leads=[*LEADS, "ABP"])
    lines = header.read_text().splitlines()
    assert lines[-1].endswith("ABP")
    lines[-1] = lines[-1].replace("1000.0(0)/mV", gain)
    header.write_text("\n".join(lines))
    assert agrees(open_source(str(header)).read(0), millivolts(steps), 6e-4)


@pytest.mark.parametrize("fmt", ["16", "212"])
@pytest.mark.parametrize("change", ["byte order mark", "folder", "folder of windows", "a name in Greek"])
def test_headers_as_other_programs_write_them(steps: Steps, tmp_path: Path, fmt: str, change: str) -> None:
    coding: dict[str, Any] = {"fmt": [fmt] * 12, "adc_gain": [1000.0] * 12, "baseline": [0] * 12}
    wfdb.wrsamp("x", 500, ["mV"] * 12, list(LEADS), p_signal=millivolts(steps).T, write_dir=str(tmp_path), **coding)
    header = tmp_path / "x.hea"
    text = header.read_text()
    names = {"folder": "sub/x", "folder of windows": r"C:\ecg\x", "a name in Greek": "χ"}
    text = names.get(change, "x") + text[1:]
    header.write_text(("\ufeff" if change == "byte order mark" else "") + text, encoding="utf-8")
    assert agrees(open_source(str(header)).read(0), millivolts(steps), 6e-4)


def test_rate_is_that_of_the_leads_where_frames_hold_several_samples(steps: Steps, tmp_path: Path) -> None:
    """15.625 frames a second of 32 samples: 500 Hz."""
    values = millivolts(steps)[:, : 62 * 32]
    coding: dict[str, Any] = {"fmt": ["16"] * 12, "adc_gain": [1000.0] * 12, "baseline": [0] * 12}
    wfdb.wrsamp(
        "x", 15.625, ["mV"] * 12, list(LEADS), e_p_signal=list(values), samps_per_frame=[32] * 12,
        write_dir=str(tmp_path), **coding,
    )  # fmt: skip
    record = open_source(str(tmp_path / "x.hea")).read(0)
    assert record.sampling_rate == 500 and agrees(record, values, 6e-4)


def test_segments_become_one_record(write_wfdb: WriteWfdb, steps: Steps, tmp_path: Path) -> None:
    write_wfdb(tmp_path, "x_1", millivolts(steps)[:, :1200])
    write_wfdb(tmp_path, "x_2", millivolts(steps)[:, 1200:])
    (tmp_path / "x.hea").write_text("x/4 12 500 2100\nx_layout 0\nx_1 1200\n~ 100\nx_2 800\n")
    record = open_source(str(tmp_path / "x.hea")).read(0)
    assert record.signal.shape == (12, 2100) and np.isnan(record.signal[:, 1200:1300]).all()
    rest = np.delete(record.signal, np.s_[1200:1300], axis=1)
    assert np.abs(rest - millivolts(steps)).max() < 6e-4


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["x_1 1200"], "2 segments in the record line, 1 segment lines"),
        (["x_1 1200", "x_1 1300"], "has 1200 samples at 500 Hz, not 1300"),
        (["x_1 1200", "../x_1 1200"], "segment line"),
        (["x_1 1200", "y 1200"], "y.hea: no such header file"),
        (["~ 1200", "~ 1200"], "all segments are gaps"),
        (["x_1 1200", "x 1200"], "has segments itself"),
        (["x_1 1200", "~ 999999999999"], "extract the part"),
        (["a 0", "b 0"], "0 samples in 2 segments"),
    ],
)
def test_bad_segments(write_wfdb: WriteWfdb, steps: Steps, tmp_path: Path, lines: list[str], reason: str) -> None:
    write_wfdb(tmp_path, "x_1", millivolts(steps)[:, :1200])
    (tmp_path / "x.hea").write_text("\n".join(["x/2 12 500 2400", *lines]))
    with pytest.raises(InputError, match=reason):
        read_wfdb(tmp_path / "x.hea")


# ---- a writer for each format: steps of 5 µV at 500 Hz -> the bytes of a file


def crc(content: bytes) -> int:
    return binascii.crc_hqx(content, 0xFFFF)


def scp(
    steps: Steps,
    names: Sequence[str] = LEADS,
    *,
    difference: int = 2,
    huffman: bool = True,
    bimodal: bool = False,
    extra: dict[int, bytes] | None = None,
    flags: int = 0x04,
    table: bytes = struct.pack("<H", 19999),
    encode: Callable[[Steps], bytes] | None = None,
) -> bytes:
    """An SCP-ECG file. extra: further sections' bodies."""
    numbers = {"I": 1, "II": 2, **{f"V{i}": 2 + i for i in range(1, 7)}, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64}
    numbers["-aVR"] = 65
    length = steps.shape[1]
    leads = [(encode or (huffman_bytes if huffman else plain_bytes))(differences(row, difference)) for row in steps]
    bodies = {
        1: struct.pack("<BHBBHB", 8, 1, 2, 4, 3, 0)[:-1] + b"",
        3: bytes([len(names), flags])
        + b"".join(struct.pack("<IIB", 1, length, numbers.get(name, 200)) for name in names),
        6: struct.pack("<HHBB", 5000, 2000, difference, bimodal)
        + struct.pack(f"<{len(leads)}H", *map(len, leads))
        + b"".join(leads),
    }
    bodies[1] = b"\x08\x01\x00\x02" + b"\x04\x03\x00" + struct.pack("<HB", 61, 1) + b"\xff\0\0"
    if huffman:
        bodies[2] = table
    bodies |= extra or {}
    place = 6 + 16 + 10 * 12 + 1
    pointers, sections = b"", b""
    for number in range(12):
        body = bodies.get(number, b"")
        size = 16 + len(body) if body else 0
        if number == 0:
            pointers += struct.pack("<HII", 0, 16 + 120, 7)
            continue
        pointers += struct.pack("<HII", number, size, place if size else 0)
        if size:
            inner = struct.pack("<HIBB6s", number, size, 20, 20, b"") + body
            sections += struct.pack("<H", crc(inner)) + inner
            place += size
    inner = struct.pack("<HIBB6s", 0, 136, 20, 20, b"SCPECG") + pointers
    content = struct.pack("<H", crc(inner)) + inner + sections
    content = struct.pack("<I", len(content) + 6) + content
    return struct.pack("<H", crc(content)) + content


def differences(row: Steps, order: int) -> Steps:
    values = row.astype(np.int64)
    if order == 0:
        return values
    return np.concatenate([values[:order], np.diff(values, order)])


def plain_bytes(values: Steps) -> bytes:
    return values.astype("<i2").tobytes()


def huffman_bytes(values: Steps) -> bytes:
    codes = {code.value: f"{prefix:0{size}b}" for (size, prefix), code in DEFAULT_TABLE.items() if size == code.length}
    bits = ""
    for value in values.tolist():
        if value in codes:
            bits += codes[value]
        elif -128 <= value < 128:
            bits += "1111111110" + f"{value & 0xFF:08b}"
        else:
            bits += "1111111111" + f"{value & 0xFFFF:016b}"
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def aecg(steps: Steps, names: Sequence[str] = LEADS, unit: str = "uV", scale: float = 5.0) -> bytes:
    sequences = "".join(
        f"""<component><sequence><code code="MDC_ECG_LEAD_{name.upper()}" codeSystem="2.16.840.1.113883.6.24"/>
        <value xsi:type="SLIST_PQ"><origin value="0" unit="{unit}"/><scale value="{scale}" unit="{unit}"/>
        <digits>{" ".join(map(str, row))}</digits></value></sequence></component>"""
        for name, row in zip(names, steps.tolist(), strict=True)
    )
    beat = "<derivation><derivedSeries><component><sequenceSet/></component></derivedSeries></derivation>"
    return f"""<?xml version="1.0" encoding="UTF-8"?>
    <AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
    <componentOf><x><subjectDemographicPerson><administrativeGenderCode code="F"/></subjectDemographicPerson></x>
    </componentOf><component><series><code code="RHYTHM"/><component><sequenceSet>
    <component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS">
    <head value="20020522"/><increment value="0.002" unit="s"/></value></sequence></component>
    {sequences}</sequenceSet></component>{beat}</series></component></AnnotatedECG>""".encode()


def muse(steps: Steps, names: Sequence[str] = EIGHT) -> bytes:
    rows = steps if len(names) == len(steps) else steps[[LEADS.index(name) for name in names]]
    leads = "".join(
        f"""<LeadData><LeadByteCountTotal>{2 * row.size}</LeadByteCountTotal><LeadSampleCountTotal>{row.size}
        </LeadSampleCountTotal><LeadAmplitudeUnitsPerBit>5.0</LeadAmplitudeUnitsPerBit>
        <LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits><LeadID>{name}</LeadID><LeadSampleSize>2</LeadSampleSize>
        <WaveFormData>{base64.encodebytes(row.astype("<i2").tobytes()).decode()}</WaveFormData></LeadData>"""
        for name, row in zip(names, rows, strict=True)
    )
    median = "<Waveform><WaveformType>Median</WaveformType><SampleBase>500</SampleBase></Waveform>"
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
    <!DOCTYPE RestingECG SYSTEM "restecg.dtd"><RestingECG>
    <PatientDemographics><PatientAge>61</PatientAge><AgeUnits>YEARS</AgeUnits><Gender>FEMALE</Gender>
    </PatientDemographics>{median}<Waveform><WaveformType>Rhythm</WaveformType><SampleBase>500</SampleBase>
    <SampleExponent>0</SampleExponent>{leads}</Waveform></RestingECG>""".encode("latin-1")


def xli_bytes(row: Steps) -> bytes:
    """One lead in XLI: second differences with bias 64, high bytes before low ones, LZW of 10 bits."""
    values = row.tolist()
    steps = [2 * values[i - 1] - values[i - 2] - values[i] for i in range(2, len(values))]
    deltas = [*values[:2], *(step + 64 for step in steps[1:]), 64]
    numbers = [value & 0xFFFF for value in deltas]
    content = bytes(value >> 8 for value in numbers) + bytes(value & 0xFF for value in numbers)
    words = {bytes([i]): i for i in range(256)}
    codes, word = [], b""
    for i in range(len(content)):
        longer = word + content[i : i + 1]
        if longer in words:
            word = longer
            continue
        codes.append(words[word])
        if len(words) < 1023:
            words[longer] = len(words)
        word = content[i : i + 1]
    bits = "".join(f"{code:010b}" for code in [*codes, words[word], 1023])
    bits += "0" * (-len(bits) % 8)
    chunk = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    return struct.pack("<IHh", len(chunk), 1, steps[0]) + chunk


def philips(steps: Steps, *, compression: str = "XLI", version: str = "1.04", labels: bool = True) -> bytes:
    rows = steps.copy()
    if compression == "XLI":
        one, two, three, right, left, foot = steps[:6]
        rows[2] = two - one - three
        rows[3] = -right - (one + two) // 2
        rows[4] = (one - three) // 2 - left
        rows[5] = (two + three) // 2 - foot
        content = b"".join(map(xli_bytes, rows))
    else:
        content = rows.astype("<i2").tobytes()
    names = f'leadlabels="{" ".join(LEADS)} X Y" numberofleads="12"' if labels else ""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
    <restingecgdata xmlns="http://www3.medical.philips.com"><documentinfo><documenttype>PhilipsECG</documenttype><documentversion>{version}</documentversion>
    </documentinfo><patient><generalpatientdata><age><years>61</years></age><sex>Female</sex></generalpatientdata>
    </patient><dataacquisition><signalcharacteristics><samplingrate>500</samplingrate><resolution>5</resolution>
    </signalcharacteristics></dataacquisition><waveforms><parsedwaveforms dataencoding="Base64" compressflag="True"
    compressmethod="{compression}" durationperchannel="{steps.shape[1] * 2}" {names}>
    {base64.encodebytes(content).decode()}</parsedwaveforms></waveforms></restingecgdata>""".encode()


def edf(
    steps: Steps, names: Sequence[str] = LEADS, unit: str = "uV", *, bdf: bool = False, records: int | None = None
) -> bytes:
    """Data records of 1 s, with a further signal of another rate and unit."""
    count, per_record = len(names) + 1, 500
    seconds = steps.shape[1] // per_record
    high = {"uV": 163840, "mV": 163.84}[unit]  # 32768 steps of 5 µV
    top = 8388608 if bdf else 32768
    fields = [
        [*(f"ECG {name}" for name in names), "SpO2"], [""] * count, [*[unit] * len(names), "%"],
        [*[f"{-high:.7g}"[:8]] * len(names), "0"], [*[f"{high - high / top:.8g}"[:8]] * len(names), "100"],
        [str(-top)] * count, [str(top - 1)] * count, [""] * count, [*["500"] * len(names), "1"], [""] * count,
    ]  # fmt: skip
    widths = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
    start = b"\xffBIOSEMI" if bdf else b"0       "
    head = start + b"MCH-0234567 F 02-MAY-1951 X".ljust(80) + b"Startdate".ljust(80) + b"01.01.2501.01.01"
    head += str(256 * (count + 1)).ljust(8).encode() + b"EDF+C".ljust(44)
    head += (
        str(seconds if records is None else records).ljust(8).encode() + b"1".ljust(8) + str(count).ljust(4).encode()
    )
    head += b"".join(value.ljust(width).encode() for width, row in zip(widths, fields, strict=True) for value in row)
    body = b""
    for second in range(seconds):
        part = steps[:, second * per_record : (second + 1) * per_record]
        values = np.concatenate([part.reshape(-1) * (top // 32768), [97]]).astype("<i4")
        body += values.view(np.uint8).reshape(-1, 4)[:, :3].tobytes() if bdf else values.astype("<i2").tobytes()
    return head + body


def table(steps: Steps, names: Sequence[str] = LEADS, *, unit: str = "mV", head: str = "") -> bytes:
    values = millivolts(steps) * {"mV": 1, "uV": 1000, "": 1}[unit]
    columns = ["time_s", *(f"{name} ({unit})" if unit else name for name in names)]
    rows = (",".join([f"{i / 500:.3f}", *(f"{value:.6g}" for value in column)]) for i, column in enumerate(values.T))
    return (head + ",".join(columns) + "\n" + "\n".join(rows) + "\n").encode()


def dicom_waveform(
    steps: Steps,
    names: Sequence[str] = LEADS,
    *,
    scheme: str = "MDC",
    unit: str = "uV",
    baseline: float = 0.0,
    median: bool = True,
) -> bytes:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    codes = {"I": 1, "II": 2, **{f"V{i}": 2 + i for i in range(1, 7)}, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64}

    def group(rows: Steps) -> Dataset:
        item = Dataset()
        item.WaveformOriginality, item.NumberOfWaveformChannels = "ORIGINAL", len(rows)
        item.NumberOfWaveformSamples, item.SamplingFrequency = rows.shape[1], 500
        channels = []
        for name in names:
            channel, source, units = Dataset(), Dataset(), Dataset()
            source.CodeValue = {"MDC": "2:{}", "SCPECG": "5.6.3-9-{}"}.get(scheme, "{}x").format(codes[name])
            source.CodingSchemeDesignator, source.CodeMeaning = scheme, f"Lead {name}"
            units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = unit, "UCUM", unit
            channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [source], [units]
            channel.ChannelSensitivity = 5.0 if unit == "uV" else 0.005
            channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = 1.0, baseline
            channel.WaveformBitsStored = 16
            channels.append(channel)
        item.ChannelDefinitionSequence = channels
        item.WaveformBitsAllocated, item.WaveformSampleInterpretation = 16, "SS"
        item.WaveformPaddingValue = np.int16(-32768).tobytes()
        item.WaveformData = rows.T.astype("<i2").tobytes()
        return item

    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.3", "ECG"
    dataset.PatientSex, dataset.PatientAge = "F", "061Y"
    dataset.WaveformSequence = [*([group(steps[:, :400])] if median else []), group(steps)]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def npy(steps: Steps) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, millivolts(steps).T)
    return buffer.getvalue()


WRITERS: dict[str, Callable[[Steps], bytes]] = {
    "x.scp": scp, "x.dcm": dicom_waveform, "hl7.xml": aecg, "muse.xml": muse, "philips.xml": philips, "x.edf": edf,
    "x.csv": table, "x.bdf": lambda steps: edf(steps, bdf=True),
}  # fmt: skip
"""Formats that give rate, unit and leads."""


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_read_and_drawn(
    steps: Steps, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_bytes(WRITERS[name](steps))
    record = open_source(str(tmp_path / name)).read(0)
    assert agrees(record, millivolts(steps), 2e-4), np.abs(record.signal - millivolts(steps)).max()
    assert record.sampling_rate == 500 and record.record_id == Path(name).stem
    assert main(["render", str(tmp_path / name), str(tmp_path / "page.png")]) in (0, 2)  # 4 s are too short to draw
    page = open_page(tmp_path / name)
    assert page.image.size == (1120, 560) and "4 s at 500 Hz" in page.note


@pytest.mark.parametrize("name", WRITERS)
def test_the_content_decides_and_not_the_name(steps: Steps, tmp_path: Path, name: str) -> None:
    (tmp_path / "x.bin").write_bytes(WRITERS[name](steps))
    assert agrees(WaveformFile(tmp_path / "x.bin").read(0), millivolts(steps), 2e-4)


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("x.csv",)])
def test_age_and_sex(steps: Steps, name: str) -> None:
    record = read_waveform(WRITERS[name](steps), None, name)
    assert record.sex == "female"
    assert record.age in (61, None) and (record.age == 61 or name in ("hl7.xml", "x.edf", "x.bdf"))


# ---- SCP-ECG


@pytest.mark.parametrize("difference", [0, 1, 2])
@pytest.mark.parametrize("huffman", [True, False])
def test_scp_codings(steps: Steps, difference: int, huffman: bool) -> None:
    content = scp(steps, difference=difference, huffman=huffman)
    assert agrees(read_waveform(content, None, "x"), millivolts(steps))


def test_scp_of_eight_leads_and_minus_avr(steps: Steps) -> None:
    rows = [LEADS.index(lead) for lead in EIGHT]
    assert agrees(read_waveform(scp(steps[rows], EIGHT), None, "x"), millivolts(steps))
    minus = steps.copy()
    minus[3] *= -1
    content = scp(minus, [*LEADS[:3], "-aVR", *LEADS[4:]])
    assert agrees(read_waveform(content, None, "x"), millivolts(steps))


def test_scp_with_tables_of_its_own_that_it_changes_between(steps: Steps) -> None:
    """Table 1: bit 0 -> 16 bits as they are; 10 -> table 2. Table 2: 8 bits after a 1; 01 -> table 1."""

    def line(prefix_bits: int, bits: int, mode: int, value: int, prefix: int) -> bytes:
        return struct.pack("<BBBhI", prefix_bits, bits, mode, value, prefix)

    tables = struct.pack("<HH", 2, 2) + line(1, 17, 1, 0, 0) + line(2, 2, 0, 2, 0b01)
    tables += struct.pack("<H", 2) + line(1, 9, 1, 0, 1) + line(2, 2, 0, 1, 0b10)  # lowest bit first

    def encode(values: Steps) -> bytes:
        bits, first = "", True
        for value in values.tolist():
            small = -128 <= value < 128
            if small == first:
                bits += "10" if first else "01"
                first = not first
            bits += f"1{value & 0xFF:08b}" if small else f"0{value & 0xFFFF:016b}"
        bits += "0" * (-len(bits) % 8)
        return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))

    content = scp(steps, difference=1, table=tables, encode=encode)
    assert agrees(read_waveform(content, None, "x"), millivolts(steps))


def test_scp_with_a_reference_beat(steps: Steps) -> None:
    """A beat of 200 samples, subtracted around two places; between its third and 150th sample only."""
    beat = steps[:, 100:300]
    rest, fiducial = steps.copy(), 80
    lines = b""
    for peak in (400, 900):  # sample numbers begin with 1
        first, last = peak - 70, peak + 60
        offset = fiducial - peak + first - 1
        rest[:, first - 1 : last] -= beat[:, offset : offset + last - first + 1]
        lines += struct.pack("<HIII", 0, first, peak, last)
    lines += struct.pack("<HIII", 1, 0, 1500, 0)
    beats = [huffman_bytes(differences(row, 2)) for row in beat]
    sections = {
        4: struct.pack("<HHH", 400, fiducial, 3) + lines,
        5: struct.pack("<HHBB", 5000, 2000, 2, 0) + struct.pack("<12H", *map(len, beats)) + b"".join(beats),
    }
    assert agrees(read_waveform(scp(rest, extra=sections, flags=0x05), None, "x"), millivolts(steps))


def test_scp_refusals(steps: Steps) -> None:
    good = scp(steps)
    for content, reason in (
        (scp(steps, bimodal=True), "bimodal"),
        (good[:-100], "bytes"),
        (good[:1500] + bytes([good[1500] ^ 1]) + good[1501:], "checksum is wrong"),
        (scp(steps, flags=0x05), "no section 4"),
        (scp(steps, extra={6: b""}), "no section 6"),
        (scp(steps[:7], LEADS[:7]), "lead V2, V3, V4, V5, V6 missing"),
    ):
        with pytest.raises(InputError, match=reason):
            read_waveform(content, None, "x")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PDF"])
def test_no_picture_is_taken_for_a_waveform(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "white").save(buffer, kind)
    assert waveform_format(buffer.getvalue()) is None


def test_long_recordings_end_soon(steps: Steps) -> None:
    """As many leads and samples as 8 and 16 bits can count would take minutes to decode bit by bit."""
    many = np.zeros((200, 30_000), np.int64)
    start = time.process_time()
    with pytest.raises(InputError, match="200 leads of 30000 samples"):
        read_waveform(scp(many, ["I"] * 200, huffman=True, encode=lambda row: bytes(row.size // 8 + 1)), None, "x")
    bomb = philips(steps).replace(b'durationperchannel="4000"', b'durationperchannel="9999999"')
    with pytest.raises(InputError, match="export 10 s"):
        read_waveform(bomb, None, "x")
    assert time.process_time() - start < 10


def test_scp_without_a_mark(steps: Steps) -> None:
    content = bytearray(scp(steps).replace(b"SCPECG", bytes(6)))
    assert agrees(read_waveform(with_checksums(bytes(content)), None, "x"), millivolts(steps))


# ---- XML


@pytest.mark.parametrize(("unit", "scale"), [("uV", 5.0), ("mV", 0.005), ("nV", 5000.0), ("V", 5e-6)])
def test_aecg_units(steps: Steps, unit: str, scale: float) -> None:
    assert agrees(read_waveform(aecg(steps, unit=unit, scale=scale), None, "x"), millivolts(steps))


def test_xml_in_utf_16(steps: Steps) -> None:
    content = aecg(steps).decode().replace("UTF-8", "UTF-16").strip().encode("utf-16")
    assert agrees(read_waveform(content, None, "x"), millivolts(steps))


@pytest.mark.parametrize("version", ["1.03", "1.04", "1.04.01"])
@pytest.mark.parametrize("compression", ["XLI", "Uncompressed"])
def test_philips(steps: Steps, version: str, compression: str) -> None:
    for labels in (True, False):
        content = philips(steps, version=version, compression=compression, labels=labels)
        assert agrees(read_waveform(content, None, "x"), millivolts(steps))


def test_xli_of_the_whole_range() -> None:
    row = np.random.default_rng(1).integers(-9000, 9000, 3000)
    size, _, start = struct.unpack("<IHh", xli_bytes(row)[:8])
    assert np.array_equal(decode_xli(xli_bytes(row)[8 : 8 + size], start, 3000), row)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<?xml version='1.0'?><CardiologyXML/>", "XML of type 'CardiologyXML'.*RestingECG"),
        (b"<html><body>x</body></html>", "XML of type 'html'"),
        (b"<RestingECG/>", "no waveform of type Rhythm"),
        (b"<AnnotatedECG xmlns='urn:hl7-org:v3'/>", "no series with samples"),
        (b"<restingecgdata><documentinfo><documentversion>2</documentversion></documentinfo></restingecgdata>", "1.03"),
        (b"<RestingECG><Waveform>", "not whole XML"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><RestingECG>&b;</RestingECG>", "entities"),
        (b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><RestingECG>&b;</RestingECG>", "entities"),
        (b"<?xml version='1.0' encoding='nonsense'?><RestingECG/>", "not whole XML"),
        (b"<a>" * 200, "deeply nested"),
    ],
)
def test_xml_refusals(content: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as failure:
        read_waveform(content, None, "x.xml")
    assert "\n" not in str(failure.value)


def test_xml_bombs_end_soon() -> None:
    lines = "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 12))
    laughs = f"<!DOCTYPE a [<!ENTITY a0 'ha'>{lines}]><RestingECG>&a11;</RestingECG>".encode()
    start = time.process_time()
    for content in (laughs, b"<RestingECG>" + b"<a/>" * 2_000_000):
        with pytest.raises(InputError):
            read_waveform(content, None, "x")
    assert time.process_time() - start < 20


# ---- EDF


def test_edf_variants(steps: Steps) -> None:
    assert agrees(read_waveform(edf(steps, unit="mV"), None, "x"), millivolts(steps), 2e-4)
    assert agrees(read_waveform(edf(steps, records=-1), None, "x"), millivolts(steps), 2e-4)
    for content, reason in (
        (edf(steps).replace(b"EDF+C", b"EDF+D"), "a recording with gaps"),
        (edf(steps)[:-3], "3 of 4 data records"),
        (edf(steps).replace(b"uV      ", b"mmHg    "), "'mmHg'"),
        (edf(steps, records=999999), "of 999999 data records"),
    ):
        with pytest.raises(InputError, match=reason):
            read_waveform(content, None, "x")


# ---- DICOM


@pytest.mark.parametrize("scheme", ["MDC", "SCPECG", "99LOCAL"])
@pytest.mark.parametrize("unit", ["uV", "mV"])
def test_dicom_codes_and_units(steps: Steps, scheme: str, unit: str) -> None:
    assert agrees(read_waveform(dicom_waveform(steps, scheme=scheme, unit=unit), None, "x"), millivolts(steps))


def test_dicom_baseline_and_padding(steps: Steps) -> None:
    gap = steps.copy()
    gap[4, 100:200] = -32768
    record = read_waveform(dicom_waveform(gap, baseline=50.0), None, "x")
    assert np.isnan(record.signal[4, 100:200]).all() and record.dead_leads() == ("aVL",)
    assert np.abs(record.signal[0] - millivolts(steps)[0] - 0.05).max() < 1e-5


def test_dicom_of_eight_leads(steps: Steps) -> None:
    rows = [LEADS.index(lead) for lead in EIGHT]
    assert agrees(read_waveform(dicom_waveform(steps[rows], EIGHT), None, "x"), millivolts(steps))


# ---- MAT of the CinC challenges


def mat4(steps: Steps) -> bytes:
    values = steps.astype("<i2")
    return struct.pack("<5i", 30, *values.shape, 0, 4) + b"val\0" + values.T.tobytes()


def cinc_header(steps: Steps) -> str:
    lines = [f"x {len(steps)} 500 {steps.shape[1]}"]
    for lead, row in zip(LEADS, steps, strict=True):
        checksum = int(row.sum()) & 0xFFFF
        lines.append(f"x.mat 16+24 200/mV 16 0 {row[0]} {checksum - (checksum > 32767) * 65536} 0 {lead}")
    return "\n".join([*lines, "#Age: 61", "#Sex: Female", "#Dx: 426783006"])


def test_mat_of_cinc(steps: Steps, tmp_path: Path) -> None:
    from scipy.io import savemat

    (tmp_path / "x.mat").write_bytes(mat4(steps))
    with pytest.raises(InputError, match=r"put x\.hea beside it"):
        open_source(str(tmp_path / "x.mat")).read(0)
    (tmp_path / "x.hea").write_text(cinc_header(steps))
    for name in ("x.mat", "x.hea"):
        assert agrees(open_source(str(tmp_path / name)).read(0), millivolts(steps)), name
    savemat(tmp_path / "x.mat", {"val": steps.astype(np.int16)}, do_compression=True)
    assert agrees(open_source(str(tmp_path / "x.mat")).read(0), millivolts(steps))
    savemat(tmp_path / "x.mat", {"ecg": steps.astype(np.int16)})
    with pytest.raises(InputError, match="'val' is missing"):
        open_source(str(tmp_path / "x.mat")).read(0)


# ---- CSV and numpy


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", ";").replace(".", ","),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace(" (mV)", "").replace(",", "  "),
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
        lambda text: '"' + text.split("\n")[0].replace(",", '","') + '"\n' + text.split("\n", 1)[1],
        lambda text: text.replace(" (mV)", "_mV"),
        lambda text: text.replace("time_s", "Time [s]"),
        lambda text: text.replace("time_s", "t"),
        lambda text: "# Patient: none\n# unit: mV\n\n" + text.replace(" (mV)", ""),
    ],
)
def test_csv_as_people_write_it(steps: Steps, change: Callable[[str], str]) -> None:
    content = change(table(steps).decode()).encode()
    assert agrees(read_waveform(content, None, "x.csv"), millivolts(steps))


def test_csv_in_microvolts_and_milliseconds(steps: Steps) -> None:
    assert agrees(read_waveform(table(steps, unit="uV"), None, "x"), millivolts(steps))
    lines = table(steps).decode().splitlines()
    rows = [f"{2 * i},{line.partition(',')[2]}" for i, line in enumerate(lines[1:])]
    for name in ("time_ms", "time"):
        content = "\n".join([lines[0].replace("time_s", name), *rows]).encode()
        assert agrees(read_waveform(content, None, "x"), millivolts(steps))


@pytest.mark.parametrize("number", ["1e39", "-1e308"])
def test_a_number_beyond_float32_is_a_gap_and_no_warning(steps: Steps, number: str) -> None:
    lines = table(steps[:, :500], ("I", "II", *LEADS[6:])).decode().splitlines()
    cells = lines[50].split(",")
    lines[50] = ",".join([*cells[:2], number, *cells[3:]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = read_waveform("\n".join(lines).encode(), None, "x.csv")
    assert np.isnan(record.lead("II")).sum() == np.isnan(record.lead("aVF")).sum() == 1


def test_csv_without_times(steps: Steps, tmp_path: Path) -> None:
    lines = [line.partition(",")[2] for line in table(steps, unit="").decode().splitlines()]
    content = "\n".join(lines).encode()
    with pytest.raises(InputError, match="no sampling rate; add a column time_s, or add --sampling-rate 500"):
        read_waveform(content, None, "x")
    assert agrees(read_waveform(content, None, "x", 500), millivolts(steps))
    for head in ("# sampling rate: 500 Hz\n", "fs=500\n", "Sample Rate,500\n", "sampling_frequency = 500.0\n"):
        assert agrees(read_waveform(head.encode() + content, None, "x"), millivolts(steps)), head
    fs = "\n".join([f"fs,{lines[0]}", *(f"500,{line}" for line in lines[1:])]).encode()
    assert agrees(read_waveform(fs, None, "x"), millivolts(steps))
    (tmp_path / "x.csv").write_bytes(content)
    assert (
        main(["render", str(tmp_path / "x.csv"), str(tmp_path / "p.png"), "--lenient", "--sampling-rate", "500"]) == 0
    )
    with Image.open(tmp_path / "p.png") as page:
        assert page.size == (1120, 560)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.split("\n", 1)[1], "no line names "),
        (lambda text: text.replace("V6 (mV)", "V7 (mV)"), "lead V6 missing"),
        (lambda text: text.replace("\n0.004,", "\n0.0058,"), "do not rise evenly"),
        (lambda text: text.replace("\n0.100,", "\nx,"), "a cell is no number"),
        (lambda text: text.replace("\n0.100,", "\n0.1"), "line 52 has 12 of 13 columns"),
        (lambda text: text.split("\n")[0], "no numbers below the names"),
    ],
)
def test_csv_refusals(steps: Steps, change: Callable[[str], str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_waveform(change(table(steps).decode()).encode(), Path("x.csv"), "x.csv")


def test_units_that_nobody_names(steps: Steps) -> None:
    for factor, reason in ((1000, "of an unknown unit, so not millivolts"), (0.001, "so not millivolts")):
        content = table((steps * factor * 1000).astype(np.int64), unit="").replace(b"time_s", b"t")
        if factor < 1:
            content = table(steps // 40, unit="")
        with pytest.raises(InputError, match=reason):
            read_waveform(content, None, "x")
    standard = millivolts(steps)
    standard = (standard - standard.mean(axis=1, keepdims=True)) / standard.std(axis=1, keepdims=True)
    rows = [",".join(LEADS), *(",".join(f"{value:.6f}" for value in column) for column in standard.T)]
    with pytest.raises(InputError, match="standardised"):
        read_waveform("\n".join(rows).encode(), None, "x", 500)


def test_numpy_arrays(steps: Steps, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an array has no sampling rate; add --sampling-rate 500"):
        read_waveform(npy(steps), None, "x")
    assert agrees(read_waveform(npy(steps), None, "x", 500), millivolts(steps))
    buffer = io.BytesIO()
    np.save(buffer, millivolts(steps)[None].astype(np.float32))
    assert agrees(read_waveform(buffer.getvalue(), None, "x", 500), millivolts(steps))
    swapped_rows = npy(steps[[1, 0, *range(2, 12)]])
    for content, reason in (
        (swapped_rows, "rows 1 to 6 are not I, II, III, aVR, aVL, aVF"),
        (npy(steps[:8]), r"\(12, samples\)"),
        (npy(steps)[:-9], "not a numpy array"),
        (npy(steps * 1000), "so not millivolts"),
    ):
        with pytest.raises(InputError, match=reason):
            read_waveform(content, None, "x", 500)
    (tmp_path / "x.npy").write_bytes(npy(steps))
    record = open_source(str(tmp_path / "x.npy"), sampling_rate=500).read(0)
    assert record.source == "npy" and record.seconds == 4


def test_a_pickle_in_an_array_is_not_opened() -> None:
    class Danger:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return (pytest.fail, ("unpickled",))

    buffer = io.BytesIO()
    np.save(buffer, np.array([[Danger()] * 12] * 12, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a numpy array of numbers"):
        read_waveform(buffer.getvalue(), None, "x", 500)


# ---- the command line


def test_a_folder_of_waveform_files(steps: Steps, tmp_path: Path, write_wfdb: WriteWfdb) -> None:
    for name, write in WRITERS.items():
        (tmp_path / name.replace("x.", f"{name[2:]}.")).write_bytes(write(steps))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=f"write files:{tmp_path}"):
        open_source(str(tmp_path))
    write_wfdb(tmp_path / "sub", "w", millivolts(steps))
    source = open_source(f"files:{tmp_path}")
    records = [source.read(i) for i in range(len(source))]
    assert [record.record_id for record in records] == sorted(record.record_id for record in records)
    assert len(records) == len(WRITERS) + 1 and any(record.record_id == "sub/w" for record in records)
    assert all(agrees(record, millivolts(steps), 6e-4) for record in records)
    with pytest.raises(InputError, match="no such folder"):
        open_source(f"files:{tmp_path}/nowhere")


def test_names_that_miss_something(write_wfdb: WriteWfdb, steps: Steps, tmp_path: Path) -> None:
    write_wfdb(tmp_path, "A0001", millivolts(steps))
    (tmp_path / "notes.txt").write_text("hello")
    for spec, reason in (
        (tmp_path / "A0001", r"did you mean .*A0001\.hea\?"),
        (tmp_path / "A0001.dat", r"did you mean .*A0001\.hea\?"),
        (tmp_path / "notes.txt", "no waveform file that can be read; WFDB"),
        (tmp_path / "x.scp", "cannot be read"),
    ):
        with pytest.raises(InputError, match=reason):
            open_source(str(spec))


def test_a_page_is_not_written_as_tiff(steps: Steps, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "simulated", str(tmp_path / "x.tif")]) == 2
    assert "pages are written as .png or .jpg" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_codes_in_small_letters_are_hinted_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "simulated:afib", str(tmp_path / "x.png")]) == 2
    assert "did you mean AFIB?" in capsys.readouterr().err


def test_ask_reads_a_waveform_from_standard_input(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(scp(steps))))
    page = open_page("-")
    assert page.note == "standard input: scp waveform, 4 s at 500 Hz; drawn" and page.image.size == (1120, 560)


# ---- whatever the bytes, a record or one line


def with_checksums(content: bytes) -> bytes:
    """An SCP-ECG file whose size and checksums are right whatever stands in it, so that the rest is tested too."""
    file = bytearray(content)
    if len(file) < 200:
        return content
    for number in range(12):
        _, length, index = struct.unpack_from("<HII", file, 22 + 10 * number)
        if number and length >= 16 and index > 0 and index - 1 + length <= len(file):
            file[index - 1 : index + 1] = struct.pack("<H", crc(bytes(file[index + 1 : index - 1 + length])))
    file[2:6] = struct.pack("<I", len(file))
    file[:2] = struct.pack("<H", crc(bytes(file[2:])))
    return bytes(file)


@settings(max_examples=200, deadline=3000)
@given(
    content=st.binary(max_size=600),
    start=st.sampled_from([b"", b"<RestingECG>", b"0       ", b"\x93NUMPY\1\0", b"I,II,III\n"]),
)
def test_any_bytes_are_refused(content: bytes, start: bytes) -> None:
    with pytest.raises(InputError):
        read_waveform(start + content, None, "x", 500)
