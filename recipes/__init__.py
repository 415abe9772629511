"""What a model is and how it is tuned: recipe schema, Mllama, LoRA, packing, the training run."""
