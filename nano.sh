#!/usr/bin/env bash
# How the nano that ships was made: simulated pages, and two runs of which the second goes on from the first.
# Called by `make nano`: an hour on two cores with AVX512-BF16. Interrupted, it goes on where it was.
#   first   one clean layout, yes/no questions, the inkiest patches: letters before handwriting
#   second  every look and layout beside the clean one, every form of question, pages that cannot be read, and every
#           patch, as the model is used, while the learning rate falls
set -euo pipefail
out=${OUT:-runs/nano}
page=(--width 784 --signal --resume --workers 2)
tune() { # a process a core: two threads of one process wait for each other in every layer of so small a model
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m ecg_vlm.cli finetune nano --resume "$@"
}

ecg-vlm render simulated "$out/clean" --limit 48000 --seed 1 --tasks rhythm,morphology --forms closed --closed 12 "${page[@]}"
ecg-vlm render simulated "$out/all" --limit 18000 --seed 2 --closed 20 "${page[@]}"
ecg-vlm render simulated "$out/mixed" --limit 16000 --seed 3 --closed 20 --layout mixed --style mixed --unreadable 0.06 "${page[@]}"

tune --out "$out/first" data.train="$out/clean" --max-steps 1500
tune --out "$out/second" model.from_scratch=false model.base="$out/first" data.train="$out/all,$out/mixed" --max-steps 150 \
    train.patches=0 train.reading=0.25 train.learning_rate=1.5e-3 train.schedule=cosine train.seed=1
