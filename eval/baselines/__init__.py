"""Comparison systems that read the waveform itself; the only part of `eval` that needs torch."""
