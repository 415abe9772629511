"""What tests of several files share: a handful of real records, and made-up WFDB records."""

from __future__ import annotations

import gc
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

# Before torch is imported, and for the processes that tests start: their batches are tiny, and threads would wait for
# each other, above all where two processes run tests.
os.environ["OMP_NUM_THREADS"] = "1"

from recipes.model import base_fingerprint
from render.record import LEADS

# Hypothesis' table of letters takes seconds on a busy machine, which says nothing of a test.
settings.register_profile("shared machine", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

_REAL = Path(os.environ.get("ECG_VLM_REAL_DATA", Path(__file__).parents[2] / "shared" / "data" / "ptb-xl"))
_NO_BROWSER = "no browser: "
_NO_RECORDS = "no real records: ECG_VLM_REAL_DATA names no folder of PTB-XL"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly that nothing was tried on real records or in a browser, which a green line would hide."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]
    for reason, what, mend in (
        (_NO_RECORDS, "ON REAL RECORDS", "set ECG_VLM_REAL_DATA to a folder of PTB-XL"),
        (_NO_BROWSER, "IN A BROWSER", "install chromium, and npm for axe-core"),
    ):
        if count := sum(reason in text for text in reasons):
            terminalreporter.write_line(f"{count} TESTS {what} WERE SKIPPED: {mend}", red=True, bold=True)


def pytest_collection_finish() -> None:
    """Keep what is imported by now out of every collection of garbage: a run of the trainer asks for a whole one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_ptbxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PTB-XL folder: whole tables, the first 8 records of fold 9 at 500 Hz, ids 1 to 10 (no 9) at 100 Hz.

    Skips the test where the real data are not at hand.
    """
    if not (_REAL / "ptbxl_database.csv").is_file():
        pytest.skip(_NO_RECORDS)
    if (_REAL / "records500").is_dir():  # as published
        return _REAL
    folder = tmp_path_factory.mktemp("real")
    _unpack(_REAL / "records500_fold09.tar.xz", folder, records=8)
    _unpack(_REAL / "records100.tar.xz", folder, records=9)
    for table in ("ptbxl_database.csv", "scp_statements.csv"):
        shutil.copy(_REAL / table, folder / "ptb-xl" / table)
    return folder / "ptb-xl"


@pytest.fixture(scope="session")
def adapter_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of version 0.1, in its files, as if tuned on the nano that ships now, which is another."""
    run = shutil.copytree(Path(__file__).with_name("v0_1") / "run", tmp_path_factory.mktemp("v0_1") / "run")
    facts = json.loads((run / "run.json").read_text()) | {"base_sha256": base_fingerprint("nano")}
    (run / "run.json").write_text(json.dumps(facts))
    return run


def _unpack(archive: Path, folder: Path, records: int) -> None:
    """The first records of an archive, which is read no further: the whole takes half a minute."""
    signals = 0
    with tarfile.open(archive, "r|xz") as tar:
        for member in tar:
            tar.extract(member, folder, filter="data")
            signals += member.name.endswith(".dat")
            if signals == records:
                return


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket on an S3 server (moto) on the loopback, which s3fs finds by its own variables."""
    for package in ("moto", "s3fs", "upath"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'ecg-vlm[cluster]' 'moto[s3]'")
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem(use_listings_cache=False).mkdir("pages-of-tests")
        yield "s3://pages-of-tests"
    server.stop()


@pytest.fixture(scope="session")
def ecg_mv() -> NDArray[np.float64]:
    """(12, 5000) millivolts at 500 Hz: 75 spikes a minute on a slow wave, each lead with its own height."""
    seconds = np.arange(5000) / 500
    beat = np.exp(-(((seconds % 0.8) - 0.4) ** 2) / (2 * 0.012**2)) + 0.1 * np.sin(2 * np.pi * 0.3 * seconds)
    heights = np.linspace(0.3, 1.4, len(LEADS)) * np.where(np.arange(len(LEADS)) == 3, -1, 1)
    return heights[:, None] * beat


@pytest.fixture(scope="session")
def write_wfdb() -> Callable[..., Path]:
    """A function that writes one WFDB record; see `write_wfdb_record`."""
    return write_wfdb_record


def write_wfdb_record(
    folder: Path,
    name: str,
    signal_mv: NDArray[np.floating],
    fs: float = 500,
    *,
    leads: Sequence[str] = LEADS,
    units: str = "mV",
    gain: float = 1000.0,
) -> Path:
    """Write `signal_mv`, (leads, n) millivolts in the order of `leads`; return the path of the .hea.

    Format 16, one .dat beside the header. units: mV, uV or V, as the header shall say. gain: steps per
    millivolt. NaN is stored as the format's "invalid sample". By hand, as wfdb.wrsamp takes 100 ms a record.
    """
    steps = np.where(np.isnan(signal_mv), -32768, np.round(np.asarray(signal_mv) * gain)).astype("<i2")
    per_unit = gain * {"mV": 1.0, "uV": 1e-3, "V": 1e3}[units]
    lines = [f"{name} {len(leads)} {fs:g} {steps.shape[1]}"]
    for lead, row in zip(leads, steps, strict=True):
        checksum = int(row.sum(dtype=np.int64)) & 0xFFFF
        lines.append(f"{name}.dat 16 {per_unit}(0)/{units} 16 0 {row[0]} {checksum} 0 {lead}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.dat").write_bytes(steps.T.tobytes())
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    return folder / f"{name}.hea"
