#!/usr/bin/env bash
# How the nano that ships was made: simulated pages, and ten runs of which each goes on from the one before.
# Called by `make nano`: five hours or less on two cores with AVX512-BF16. Interrupted, it goes on where it was.
#   first   one clean layout, yes/no questions, the inkiest patches: letters before handwriting
#   second  every look and layout beside the clean one, every form of question, pages that cannot be read, and every
#           patch, as the model is used, while the learning rate falls
#   third   as the second on new pages, eight times as long, with the inkiest patches
#   fourth  the same pages with every patch, while the learning rate falls
#   fifth   as the third on new pages, on which questions have many more wordings and more pages cannot be read
#   sixth   the same pages with every patch, while the learning rate falls
#   seventh new pages, of the simulator that draws statements in the company in which PTB-XL shows them
#   eighth  the same pages with every patch, while the learning rate falls
#   ninth   as the seventh on new pages, three times as long
#   tenth   the same pages with every patch, while the learning rate falls
# The third, the fifth, the seventh and the ninth started from shipped weights, without the reading heads, which the
# copies below leave out too.
set -euo pipefail
out=${OUT:-runs/nano}
page=(--width 784 --signal --resume --workers 2)
all=(--closed 20 "${page[@]}")
mixed=(--layout mixed --style mixed "${all[@]}")
settle=(train.patches=0 train.reading=0.25 train.learning_rate=1.5e-3 train.schedule=cosine)
tune() { # a process a core: two threads of one process wait for each other in every layer of so small a model
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m ecg_vlm.cli finetune nano --resume "$@"
}
shipped() { # a run's model as it ships: without its reading heads
    mkdir -p "$1-shipped"
    find "$1" -maxdepth 1 -type f ! -name "reading.safetensors" -exec cp {} "$1-shipped" \;
}

ecg-vlm render simulated "$out/clean" --limit 48000 --seed 1 --tasks rhythm,morphology --forms closed --closed 12 "${page[@]}"
ecg-vlm render simulated "$out/all" --limit 18000 --seed 2 "${all[@]}"
ecg-vlm render simulated "$out/mixed" --limit 16000 --seed 3 --unreadable 0.06 "${mixed[@]}"
ecg-vlm render simulated "$out/more" --limit 20000 --seed 4 "${all[@]}"
ecg-vlm render simulated "$out/more-mixed" --limit 24000 --seed 5 --unreadable 0.06 "${mixed[@]}"
ecg-vlm render simulated "$out/words" --limit 14000 --seed 6 --unreadable 0.06 "${all[@]}"
ecg-vlm render simulated "$out/words-mixed" --limit 18000 --seed 7 --unreadable 0.15 "${mixed[@]}"
ecg-vlm render simulated "$out/company" --limit 5000 --seed 8 --unreadable 0.06 "${all[@]}"
ecg-vlm render simulated "$out/company-mixed" --limit 6000 --seed 9 --unreadable 0.15 "${mixed[@]}"
ecg-vlm render simulated "$out/further" --limit 7000 --seed 10 --unreadable 0.06 "${all[@]}"
ecg-vlm render simulated "$out/further-mixed" --limit 5000 --seed 11 --unreadable 0.15 "${mixed[@]}"

tune --out "$out/first" data.train="$out/clean" --max-steps 1500
tune --out "$out/second" model.from_scratch=false model.base="$out/first" data.train="$out/all,$out/mixed" --max-steps 150 \
    "${settle[@]}" train.seed=1
shipped "$out/second"
tune --out "$out/third" model.from_scratch=false model.base="$out/second-shipped" data.train="$out/more,$out/more-mixed" --max-steps 1300 \
    train.patches=94 train.reading=0.5 train.seed=2
tune --out "$out/fourth" model.from_scratch=false model.base="$out/third" data.train="$out/more,$out/more-mixed" --max-steps 250 \
    "${settle[@]}" train.seed=3
shipped "$out/fourth"
tune --out "$out/fifth" model.from_scratch=false model.base="$out/fourth-shipped" data.train="$out/words,$out/words-mixed" \
    --max-steps 950 train.patches=94 train.reading=0.5 train.seed=4
tune --out "$out/sixth" model.from_scratch=false model.base="$out/fifth" data.train="$out/words,$out/words-mixed" --max-steps 150 \
    "${settle[@]}" train.seed=5
shipped "$out/sixth"
tune --out "$out/seventh" model.from_scratch=false model.base="$out/sixth-shipped" data.train="$out/company,$out/company-mixed" \
    --max-steps 115 train.patches=94 train.reading=0.5 train.learning_rate=1.5e-3 train.seed=6
tune --out "$out/eighth" model.from_scratch=false model.base="$out/seventh" data.train="$out/company,$out/company-mixed" \
    --max-steps 120 "${settle[@]}" train.seed=7
shipped "$out/eighth"
tune --out "$out/ninth" model.from_scratch=false model.base="$out/eighth-shipped" data.train="$out/further,$out/further-mixed" \
    --max-steps 350 train.patches=94 train.reading=0.5 train.seed=8
tune --out "$out/tenth" model.from_scratch=false model.base="$out/ninth" data.train="$out/further,$out/further-mixed" \
    --max-steps 110 "${settle[@]}" train.seed=9
