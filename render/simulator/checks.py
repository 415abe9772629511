"""Whether a noise-free beat shows its findings, and which further descriptive statements it meets."""

from __future__ import annotations

from render.record import sorted_statements
from render.simulator.criteria import Q_LEADS, SMALL_Q, SimulatedBeat
from render.simulator.dipoles import Person
from render.simulator.findings import IMPLICATIONS, Q_INFARCTS

# Findings whose ST-T changes follow from the activation: no descriptive ST-T statement is checked or added.
_SECONDARY = frozenset({"CLBBB", "CRBBB", "IRBBB", "ILBBB", "IVCD", "WPW", "PACE", "RVH"})
_WIDE = frozenset({"CLBBB", "WPW", "PACE"})

Check = tuple[str, bool]


def violations(findings: frozenset[str], beat: SimulatedBeat, person: Person) -> list[str]:
    """Names of the checks that the beat fails: "LAFB" (a finding is missing), "no QWAVE" (one too many)."""
    checks = [*_scars(findings, beat), *_conduction(findings, beat), *_voltage(findings, beat)]
    if not findings & _SECONDARY:
        checks += _recovery(findings, beat, person)
    if "NORM" in findings:
        checks.append(("NORM", -30 <= beat.axis <= 90 and beat.qrs_ms <= 118))
    return [name for name, holds in checks if not holds]


def _scars(findings: frozenset[str], beat: SimulatedBeat) -> list[Check]:
    checks = [
        (code, all(beat.q_ms(n) >= 30 for n in SMALL_Q.get(code, Q_LEADS[code]))) for code in findings & Q_INFARCTS
    ]
    if findings & {"PMI", "IPMI", "IPLMI"}:
        checks.append(("PMI", all(beat.r(n) >= beat.s(n) for n in ("V1", "V2"))))
    if "QWAVE" in findings:
        checks.append(("QWAVE", beat.pathological_q))
    if "SEHYP" in findings:
        checks.append(("SEHYP", 0 < beat.q_ms("V6", 0.15) < 40))
    elif not findings & (Q_INFARCTS | _WIDE | {"QWAVE"}):
        checks.append(("no QWAVE", not beat.pathological_q))
    return checks


def _conduction(findings: frozenset[str], beat: SimulatedBeat) -> list[Check]:
    checks: list[Check] = []
    if "LAFB" in findings:
        checks.append(("LAFB", -90 < beat.axis <= -45 and beat.r("aVL") > 0 and beat.s("II") > beat.r("II")))
    if "LPFB" in findings:
        checks.append(("LPFB", beat.axis >= 90 and beat.s("I") > beat.r("I")))
    if "RVH" in findings:
        checks.append(("RVH", beat.axis >= 88 and beat.r("V1") >= 0.7 and beat.r("V1") > beat.s("V1")))
    if "CRBBB" in findings:
        late = float(beat.lead("V1")[int(beat.qrs_ms * 0.7 / 2)])
        checks.append(("CRBBB", late > 0.15 and beat.s("V6") > 0.1))
    if "CLBBB" in findings or "ILBBB" in findings:
        no_q = beat.q_ms("V6", 0.04) == 0 and beat.q_ms("I", 0.04) == 0
        left = beat.r("I") > beat.s("I") and beat.r("V6") > max(0.3, beat.s("V6"))
        checks.append(("LBBB", no_q and left))
    if "CLBBB" in findings:
        checks.append(("CLBBB", beat.s("V1") > beat.r("V1") and beat.r("V1") < 0.6))
    return checks


def _voltage(findings: frozenset[str], beat: SimulatedBeat) -> list[Check]:
    checks = [("LVOLT", (beat.limb_peak < 0.5) == ("LVOLT" in findings))]
    if findings & {"LVH", "VCLVH"}:
        checks.append(("VCLVH", beat.sokolow >= 3.5))
    elif "HVOLT" in findings:
        checks.append(("HVOLT", beat.high_voltage))
    elif not findings & (_WIDE | {"CRBBB", "RVH"}):
        checks.append(("no VCLVH", beat.sokolow < 3.5 and not beat.high_voltage))
    return checks


def _recovery(findings: frozenset[str], beat: SimulatedBeat, person: Person) -> list[Check]:
    """ST-T checks of a beat whose activation does not itself change ST-T."""
    primary = findings & (Q_INFARCTS | {"PMI", "LVH", "SEHYP", "ANEUR"}) or any(
        c.startswith(("ISC", "INJ")) for c in findings
    )
    checks: list[Check] = []
    if "LOWT" in findings:
        checks.append(("LOWT", beat.t_low))
    if "INVT" in findings:
        checks.append(("INVT", beat.t_inverted))
    if "STD_" in findings or "DIG" in findings:
        checks.append(("STD_", beat.st_depressed))
    elif not primary and "EL" not in findings:
        checks.append(("no STD_", not beat.st_depressed))
    if not primary and not findings & {"STE_", "EL"}:
        limit = 0.15 if person.sex == "female" else 0.2
        checks.append(("no STE_", not beat.st_elevated and max(beat.j("V2"), beat.j("V3")) < limit))
    if "NORM" in findings:
        checks.append(("normal T", beat.t_normal))
    return checks


def record_statements(findings: frozenset[str], beat: SimulatedBeat) -> tuple[str, ...]:
    """Sorted codes: the findings, what they imply, and the descriptive statements that the noise-free beat meets."""
    codes = set(findings).union(*(IMPLICATIONS.get(code, ()) for code in findings))
    if findings & _WIDE:
        return sorted_statements(codes)
    if beat.sokolow >= 3.5 and not findings & {"CRBBB", "RVH", "ILBBB"}:
        codes.add("VCLVH")
    if not findings & _SECONDARY:
        if beat.st_depressed:
            codes.add("STD_")
            codes.discard("NST_")
        if beat.t_inverted:
            codes.update({"INVT", "TAB_"})
        elif beat.t_low and "NORM" not in codes:
            codes.update({"LOWT", "NT_", "TAB_"})
    return sorted_statements(codes)
