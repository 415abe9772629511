"""Everything an ECG is before a model sees it: records, statements, simulator, paper, dialogues, data sets."""
