"""A result as a FHIR DiagnosticReport, checked by the library fhir.resources against R4B and R5."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecg_vlm.fhir import diagnostic_report

fhir_r4b = pytest.importorskip("fhir.resources.R4B.diagnosticreport")
fhir_r5 = pytest.importorskip("fhir.resources.diagnosticreport")


@pytest.fixture
def result() -> dict[str, Any]:
    return {
        "version": "0.2.0",
        "image": "Jane Doe.jpg",
        "image_sha256": "00f0",
        "model": "nano",
        "readable": True,
        "refusal_reason": "",
        "measured_on": "digitized leads",
        "measurements": {
            "rate_bpm": 75.0,
            "pr_ms": 188.6,
            "qrs_ms": 86.0,
            "qt_ms": 413.4,
            "qtc_fridericia_ms": 445.3,
            "qrs_axis_deg": -52.7,
        },
        "st_elevation_mv": {"V2": 0.31, "V3": 0.42},
        "warnings": ["ST elevation of 0.2 mV or more was measured"],
        "answers": [{"question": "What is it?", "answer": "<b>AF</b> & more.", "contradicted": {"NST_": 0.19}}],
        "scores": {"ASMI": 0.9, "SR": 0.6, "NORM": 0.1},
        "calibrated": True,
        "uncalibrated": ["SR"],
        "thresholds": {"ASMI": 0.3, "SR": 0.7, "NORM": 0.05},
        "verdicts": {"ASMI": True, "SR": False, "NORM": False},
    }


def _check(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The observations of a valid report by the text of their codes."""
    text = json.dumps(report)
    for version in (fhir_r4b, fhir_r5):
        version.DiagnosticReport.model_validate_json(text)
    observations = report.get("contained", [])
    assert [entry["reference"] for entry in report.get("result", [])] == [f"#{o['id']}" for o in observations]
    return {observation["code"]["text"]: observation for observation in observations}


def test_measurements_findings_and_conclusion(result: dict[str, Any]) -> None:
    report = diagnostic_report(result)
    observations = _check(report)
    assert report["status"] == "preliminary"
    assert report["code"]["coding"][0]["code"] == "11524-6"
    assert {o["code"]["coding"][0]["code"] for o in observations.values() if "coding" in o["code"]} == {
        "8867-4", "8625-6", "8633-0", "8634-8", "76634-5", "8632-2", "8601-7",
    }  # fmt: skip
    assert observations["QRS axis"]["valueQuantity"]["value"] == -52.7
    assert observations["Q-T interval corrected based on Fridericia formula"]["valueQuantity"]["value"] == 445.3
    assert observations["Heart rate"]["method"]["text"] == "measured on the digitized leads"
    impressions = [o for o in report["contained"] if o["code"]["text"] == "EKG impression"]
    assert [o["valueCodeableConcept"]["coding"][0]["code"] for o in impressions] == ["ASMI"]
    assert "non-specific ST changes (0.19)" in report["conclusion"]
    assert "not a medical device" in report["conclusion"]
    assert "subject" not in report
    assert "Jane" not in json.dumps(report)  # names of files are often those of patients


@pytest.mark.parametrize(("calibrated", "uncalibrated"), [(False, []), (True, ["ASMI"])])
def test_a_finding_says_that_its_score_is_not_calibrated(result: dict[str, Any], calibrated, uncalibrated) -> None:
    report = diagnostic_report({**result, "calibrated": calibrated, "uncalibrated": uncalibrated})
    _check(report)
    notes = [o["note"][0]["text"] for o in report["contained"] if o["code"]["text"] == "EKG impression"]
    assert notes == ["score, not calibrated: 0.90, threshold 0.30"]


def test_an_unreadable_page_is_cancelled(result: dict[str, Any]) -> None:
    nothing = {
        "image_sha256": "",
        "measurements": {},
        "st_elevation_mv": {},
        "scores": {},
        "warnings": [],
        "measured_on": "",
    }
    report = diagnostic_report({**result, **nothing, "readable": False, "refusal_reason": "no leads"})
    assert _check(report) == {}
    assert report["status"] == "cancelled"
    assert report["conclusion"].startswith("The picture cannot be read: no leads")
    assert "contained" not in report and "identifier" not in report
