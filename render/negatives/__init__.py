"""Pictures that are no ECG, drawn from chance alone: prints, plots, and scenes that pass for photographs."""
