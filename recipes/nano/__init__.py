"""Nano: a small Mllama with its own tokenizer and processor. The files here are what `transformers` loads."""
