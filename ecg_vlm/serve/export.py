"""Results as files: a report, FHIR, WFDB and CSV. All of it in memory."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

from ecg_vlm import __version__
from ecg_vlm.digitized_files import csv_table, wfdb_files
from ecg_vlm.fhir import diagnostic_report
from ecg_vlm.page_report import page_report_html, page_report_pdf
from ecg_vlm.serve.page_files import DigitizedUpload
from ecg_vlm.translation import Language
from render.record import HIGH_RATE_HZ

_NAME = "ecg"


def document(result: dict[str, Any], form: str, language: Language) -> tuple[bytes, str, str]:
    """A result of /v1/ask as "pdf", "html", "fhir" or "json": its bytes, their media type, and the name of a file."""
    if form == "pdf":
        return page_report_pdf(result, language), "application/pdf", f"{_NAME}.pdf"
    if form == "html":
        return page_report_html(result, language).encode(), "text/html; charset=utf-8", f"{_NAME}.html"
    if form == "fhir":
        return _json(diagnostic_report(result)), "application/fhir+json", f"{_NAME}-fhir.json"
    return _json(result), "application/json", f"{_NAME}.json"


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False).encode()


def digitized_json(page: DigitizedUpload) -> dict[str, Any]:
    """The summary of a digitized page and its leads in mV, null where nothing was read."""
    head = {"version": __version__, "image": page.source, "page": page.number, "pages": page.count}
    if page.page is None:
        return {**head, "refusal_reason": page.refusal_reason}
    summary = page.page.summary()
    for facts, lead in zip(summary["leads"], page.page.leads, strict=True):
        facts["millivolts"] = [None if v != v else round(v, 4) for v in lead.millivolts.tolist()]
    return {**head, "refusal_reason": "", "sampling_rate": HIGH_RATE_HZ, **summary}


def digitized_archive(pages: Sequence[DigitizedUpload], form: str) -> bytes:
    """A ZIP archive with the files of each page that was read: WFDB and CSV, or CSV alone, and its summary."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, page in enumerate(pages, 1):
            name = _NAME if len(pages) == 1 else f"{_NAME}-{number}"
            for file, content in _files(page, name, form).items():
                archive.writestr(file, content)
    return stream.getvalue()


def _files(page: DigitizedUpload, name: str, form: str) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {}
    facts = {"image": page.source, "page": page.number, "refusal_reason": page.refusal_reason}
    if page.page is not None:
        facts |= page.page.summary()
        files[f"{name}.csv"] = csv_table(page.page)
        if form == "wfdb":
            files |= wfdb_files(page.page, name)
    return {**files, f"{name}.json": json.dumps(facts, indent=1)}
