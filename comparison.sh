#!/usr/bin/env bash
# Every comparison system on the same real records: trained on PTB-XL's folds 1-8, judged on fold 9 beside nano, tuned and
# untuned. Called by `make comparison PTBXL=DIR`, or PTBXL="DIR DIR" for several folders; a night on two cores for some 2,300
# records. Interrupted, it goes on where it was. Less time: EPOCHS=10 for all systems, SEEDS=1.
set -euo pipefail
data=()
for source in "$@"; do data+=(--data "ptbxl:$source"); done
out=${OUT:-runs/comparison} real=${REAL:-runs/real}
limit=(${LIMIT:+--limit "$LIMIT"}) # for a trial: LIMIT=40 EPOCHS=1 STEPS=2
# Name, epochs, seeds: three seeds for what takes minutes; fewer epochs than published for what would take more than a night.
systems="
wavelet_nn 30 3
resnet1d_wang 50 3
fcn_wang 50 3
xresnet1d101 50 3
inception1d 50 3
multiresconv 50 1
protoecgnet 40 1
ecg_jepa 20 1
"

timed() { # a file, a command: adds the seconds to the file, those of all attempts
    local start=$SECONDS status=0
    "${@:2}" || status=$?
    echo $((SECONDS - start)) >>"$1"
    return $status
}

predict() { # a run, a folder for its scores of fold 9
    [[ -f $2/scores.parquet ]] ||
        timed "$2.seconds" ecg-vlm baseline predict "$1" "${data[@]}" --folds 9 --out "$2" "${limit[@]}"
}

[[ -f $real/report/report.json ]] || OUT=$real bash real.sh "$@" # nano, tuned, and the pages of fold 9
mkdir -p "$out"
compare=()
while read -r name epochs seeds; do
    [[ $name ]] || continue
    for ((seed = 0; seed < ${SEEDS:-$seeds}; seed++)); do
        run=$out/runs/$seed/$name scores=$out/scores/$seed/$name
        mkdir -p "$out/runs/$seed" "$out/scores/$seed"
        timed "$run.seconds" ecg-vlm baseline train "$name" "${data[@]}" --folds 1-8 --seed "$seed" --out "$run" --resume \
            --epochs "${EPOCHS:-$epochs}" "${limit[@]}"
        predict "$run" "$scores"
    done
    compare+=(--compare "$out/scores/0/$name/scores.parquet")
done <<<"$systems"
# MoRE learns from the records' reports and is judged as it then is, by the statements' names alone.
run=$out/runs/0/more_nano scores=$out/scores/0/more_nano
timed "$run.seconds" ecg-vlm baseline pretrain more_nano "${data[@]}" --folds 1-8 --out "$run" --resume \
    ${STEPS:+--steps "$STEPS"} "${limit[@]}"
predict "$run" "$scores"
compare+=(--compare "$scores/scores.parquet")
[[ -f $out/report/report.json ]] || ecg-vlm evaluate "$real/run" --compare nano "${compare[@]}" --data "$real/held-out" --out "$out/report" --resume
python benchmarks/comparison.py "$out"
# The report's table goes into docs/results.md; not after a trial.
[[ ${limit[*]} ]] || python benchmarks/results.py "$out/report" comparison
