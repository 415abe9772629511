"""Random pictures that show no ECG: documents, plots, and scenes in place of photographs."""
