"""What each section of the report says, for a clinician, in two sentences."""

from __future__ import annotations

EXPLANATIONS = {
    "systems": (
        "What each system learnt from, as far as it is known. A system that has seen these patients, or others of "
        "the same hospital, looks better here than it will elsewhere."
    ),
    "ranking": (
        "Take one ECG with a finding and one without it: the AUC is how often the system gives the right one the "
        "higher score, and the macro-AUC is its mean over all findings, so that a rare one weighs as much as a "
        "common one. 0.5 is a coin toss, and where the interval of a difference contains zero, these records do "
        "not show which system is better."
    ),
    "statements": (
        "The same for each finding alone, because a good mean can hide a finding that is missed. A long line, or "
        "a pale row, means that there were too few patients with the finding to be sure."
    ),
    "roc": (
        "Each curve shows what share of the patients with the finding are detected (sensitivity) at the price of "
        "what share of false alarms (one minus specificity), for every threshold that one might choose. The "
        "nearer a curve is to the upper left corner the better; on the diagonal the system guesses."
    ),
    "probabilities": (
        "Average precision is how clean the list of alarms is, sorted by score, and depends on how common the "
        "finding is. The Brier score and the calibration error say how far the given probabilities are from what "
        "was there; smaller is better."
    ),
    "calibration": (
        "If a system says 70 % of many ECGs, seven in ten of them should have the finding, and the point lies on "
        "the diagonal. Below the diagonal it claims too much, above it too little."
    ),
    "decisions": (
        "Yes and no at one threshold for each finding, chosen on other patients beforehand, as a device in use "
        "would do it. Precision is the share of alarms that are right, recall the share of findings that are "
        "detected, and F1 is high only where both are."
    ),
    "confused": (
        "Findings that look alike, such as fibrillation and flutter, and how well the system tells one from the "
        "other. A value of 0.5 means that it cannot, even if it detects that something is wrong."
    ),
    "controls": (
        "The system is shown blank sheets and the ECGs of other patients: if it still scores well, it does not "
        "read the ECG. The other pages show the same ECG printed or copied differently, and the score should "
        "hardly fall."
    ),
    "words": (
        "What the system wrote is read for findings it states, denies or doubts; stated findings are compared "
        "with the labels. Precision is the share of stated findings that are right, and recall the share of the "
        "findings present that were stated."
    ),
    "pages": (
        "ECGs that the system saw, with its answers: the first ones, chosen by nobody, and then its worst errors. "
        "Look here whether the errors are ones that a colleague might make."
    ),
    "cost": (
        "What an ECG takes in time on the named machine. It says nothing about quality, and another machine gives "
        "other times."
    ),
}
"""Section -> two sentences."""
