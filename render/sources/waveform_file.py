"""Which waveform format a file has, and its record."""

from __future__ import annotations

WAVEFORM_SUFFIXES = frozenset((".hea", ".dcm", ".scp", ".xml", ".edf", ".bdf", ".mat", ".csv", ".tsv", ".npy"))
"""How the names of files end that hold a record."""
