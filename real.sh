#!/usr/bin/env bash
# The same road on real records: nano is tuned and a CNN is trained on PTB-XL's folds 1-8, both are judged on fold 9.
# Called by `make real PTBXL=DIR`, or PTBXL="DIR DIR" for several folders whose records are learnt and judged together; an hour
# or so on two cores for some 2,300 records. Interrupted, it goes on where it was. Restored records teach and are not judged.
# Each record is learnt from two pages: the one that is judged, and one of any layout and look.
set -euo pipefail
sources=("${@/#/ptbxl:}")
out=${OUT:-runs/real}
data=()
for source in "${sources[@]}"; do data+=(--data "$source"); done
limit=(${LIMIT:+--limit "$LIMIT"}) # for a trial: LIMIT=40 EPOCHS=1 STEPS=2
pages=(--width 784 --tasks rhythm,morphology --forms closed,open --closed 24 --resume "${limit[@]}")

ecg-vlm render "${sources[@]}" "$out/train" --folds 1-8 --workers 2 "${pages[@]}"
ecg-vlm render "${sources[@]}" "$out/looks" --folds 1-8 --workers 2 --layout mixed --style mixed --seed 1 "${pages[@]}"
ecg-vlm render "${sources[@]}" "$out/held-out" --folds 9 --workers 2 "${pages[@]}"
OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m ecg_vlm.cli finetune ptbxl data.train="$out/train,$out/looks" --out "$out/run" \
    --resume train.mixed_precision=true ${STEPS:+--max-steps "$STEPS"}
ecg-vlm baseline train resnet1d_wang "${data[@]}" --folds 1-8 --out "$out/cnn" --resume \
    "${limit[@]}" ${EPOCHS:+--epochs "$EPOCHS"}
rm -rf "$out/resnet1d_wang" "$out/report"
ecg-vlm baseline predict "$out/cnn" "${data[@]}" --folds 9 --out "$out/resnet1d_wang" "${limit[@]}"
ecg-vlm evaluate "$out/run" --compare nano --compare "$out/resnet1d_wang/scores.parquet" --data "$out/held-out" \
    "${data[@]/#--data/--controls-source}" --out "$out/report"
# The report's table goes into docs/results.md; not after a trial.
[[ ${limit[*]} ]] || python benchmarks/results.py "$out/report" real
