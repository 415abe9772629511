"""What an answer is worth: text to statements, metrics with intervals, comparison systems, the report."""
