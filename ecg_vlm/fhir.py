"""A result of `ecg-vlm ask --json` as a FHIR DiagnosticReport: valid in R4B and R5, and of elements that R4 has, too.

Codes: LOINC for the study and the measurements, UCUM for their units, SCP-ECG (EN 1064, ISO 11073-91064) for findings.
HL7 publishes no address for SCP-ECG, so its codes have the URN of the ISO standard. Nothing about a patient is written:
whoever files the report adds its subject.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from render.statements import STATEMENTS

_SCP_ECG = "urn:iso:std:iso:11073:-91064"
_NOT_A_DEVICE = "Written by software that is not a medical device; not a diagnosis, and not confirmed by a physician."
# Names are LOINC's. QTc by Fridericia has a code of its own: LOINC keeps 8636-3 for a QTc without a method (see its
# description of 76634-5). The impression (8601-7) is coded as in HL7's US Core (Observation-ekg-impression), and the
# rate as in FHIR's vital signs.
_MEASUREMENTS = {
    "rate_bpm": ("8867-4", "Heart rate", "/min"),
    "pr_ms": ("8625-6", "P-R Interval", "ms"),
    "qrs_ms": ("8633-0", "QRS duration", "ms"),
    "qt_ms": ("8634-8", "Q-T interval", "ms"),
    "qtc_fridericia_ms": ("76634-5", "Q-T interval corrected based on Fridericia formula", "ms"),
    "qrs_axis_deg": ("8632-2", "QRS axis", "deg"),
}
"""Key of a result -> LOINC code, its name, UCUM unit."""


def diagnostic_report(result: Mapping[str, Any]) -> dict[str, Any]:
    """The DiagnosticReport of one page: measurements and findings as contained Observations, answers as its conclusion.

    Its status is "preliminary": no physician has seen it; of a page that cannot be read it is "cancelled".

    Args:
        result: of `PageAnswers.to_json`.
    """
    observations = [
        {"resourceType": "Observation", "id": f"observation-{i}", "status": "preliminary", "device": _software(result)}
        | content
        for i, content in enumerate(_observations(result), 1)
    ]
    report = {
        "resourceType": "DiagnosticReport",
        "contained": observations,
        "identifier": [
            {"type": {"text": "SHA-256 of the file"}, "value": sha} for sha in [result["image_sha256"]] if sha
        ],
        "status": "preliminary" if result["readable"] else "cancelled",
        "category": [{"coding": [_coding("http://terminology.hl7.org/CodeSystem/v2-0074", "EC", "Electrocardiac")]}],
        "code": _loinc("11524-6", "EKG study"),
        "result": [{"reference": f"#{observation['id']}"} for observation in observations],
        "conclusion": _conclusion(result),
    }
    return {key: value for key, value in report.items() if value != []}  # FHIR knows no empty list


def _observations(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key, (code, name, unit) in _MEASUREMENTS.items():
        if key in result["measurements"]:
            yield {
                "code": _loinc(code, name),
                "valueQuantity": _quantity(result["measurements"][key], unit),
                "method": {"text": f"measured on the {result['measured_on']}"},
            }
    if result["st_elevation_mv"]:
        yield {
            "code": {"text": "ST elevation of 0.2 mV or more in neighbouring leads"},
            "method": {"text": f"measured on the {result['measured_on']}"},
            "component": [
                {"code": {"text": f"ST elevation in lead {lead}"}, "valueQuantity": _quantity(mv, "mV")}
                for lead, mv in result["st_elevation_mv"].items()
            ],
        }
    yield from _findings(result)


def _findings(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The statements that are called present, the likeliest first."""
    for code, p in sorted(result["scores"].items(), key=lambda item: -item[1]):
        if not result["verdicts"][code]:
            continue
        is_calibrated = result["calibrated"] and code not in result["uncalibrated"]
        kind = "calibrated probability" if is_calibrated else "score, not calibrated"
        name = STATEMENTS[code].name
        yield {
            "code": _loinc("8601-7", "EKG impression"),
            "valueCodeableConcept": {"coding": [_coding(_SCP_ECG, code, name)], "text": name},
            "note": [{"text": f"{kind}: {p:.2f}, threshold {result['thresholds'][code]:.2f}"}],
        }


def _conclusion(result: Mapping[str, Any]) -> str:
    """Answers with what the model takes back, warnings, and what kind of software says so."""
    lines = list(result["warnings"])
    if not result["readable"]:
        lines.append(f"The picture cannot be read: {result['refusal_reason']}")
    for answer in result["answers"] if result["readable"] else ():
        lines.append(f"{answer['question']} {answer['answer']}")
        if answer["contradicted"]:
            codes = ", ".join(f"{STATEMENTS[code].name} ({p:.2f})" for code, p in answer["contradicted"].items())
            lines.append(f"Against this answer, the model's own probabilities are: {codes}")
    return "\n".join([*lines, _NOT_A_DEVICE])


def _software(result: Mapping[str, Any]) -> dict[str, str]:
    return {"display": f"ecg-vlm {result['version']}, model {result['model']}"}


def _loinc(code: str, name: str) -> dict[str, Any]:
    return {"coding": [_coding("http://loinc.org", code, name)], "text": name}


def _coding(system: str, code: str, display: str) -> dict[str, str]:
    return {"system": system, "code": code, "display": display}


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}
