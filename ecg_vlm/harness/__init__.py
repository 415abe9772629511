"""Tasks for lm-evaluation-harness: `lm_eval --include_path "$(ecg-vlm list harness)" --tasks ecg_pages ...`."""
