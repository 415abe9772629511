#!/usr/bin/env bash
# How the nano that ships was made: simulated pages, and runs of which each goes on from the one before.
# Called by `make nano`: five hours or less on two cores with AVX512-BF16. Interrupted, it goes on where it was.
#   first      one clean layout, yes/no questions, the inkiest patches: letters before handwriting
#   second     every look and layout beside the clean one, every form of question, pages that cannot be read, and every
#              patch, as the model is used, while the learning rate falls
# Lessons follow, each on new pages, first with the inkiest patches ("-begun"), then ("-settled") with every patch while
# the learning rate falls:
#   more       as the second, eight times as long
#   words      questions have many more wordings, and more pages cannot be read
#   company    of the simulator that draws statements in the company in which PTB-XL shows them
#   further    the same, three times as long
#   intervals  more pages of rhythms that intervals alone tell; the RR interval was to be read at R peaks (commit 7368958)
#   beats      the same pages: every patch is to read where it lies between two beats
# and in the end new pages three times more, with every patch, while the learning rate falls: "last"; "forms", in which
# yes/no questions also begin with "Is it" and "Is this"; and "acute", a third of whose pages are evolving infarcts.
set -euo pipefail
out=${OUT:-runs/nano}
page=(--width 784 --signal --resume --workers 2)
all=(--closed 20 "${page[@]}")
mixed=(--layout mixed --style mixed "${all[@]}")
tune() { # a process a core: two threads of one process wait for each other in every layer of so small a model
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m ecg_vlm.cli finetune nano --resume "$@"
}
go_on() { # its name, the run before, its pages, steps, a seed; other overrides
    tune --out "$out/$1" model.from_scratch=false model.base="$out/$2" data.train="$out/${3//,/,$out/}" --max-steps "$4" \
        train.seed="$5" "${@:6}"
}
begin() { # as go_on, from the run before as it ships: without its reading heads
    mkdir -p "$out/$2-shipped"
    find "$out/$2" -maxdepth 1 -type f ! -name "reading.safetensors" -exec cp {} "$out/$2-shipped" \;
    go_on "$1-begun" "$2-shipped" "${@:3:3}" train.patches=94 train.reading=0.5 "${@:6}"
}
settle() { # as go_on
    go_on "$1-settled" "${@:2:4}" train.patches=0 train.reading=0.25 train.learning_rate=1.5e-3 train.schedule=cosine "${@:6}"
}
lesson() { # its name, the run before, its pages, steps with the inkiest patches, a seed, steps with every patch; others
    begin "${@:1:5}" "${@:7}"
    settle "$1" "$1-begun" "$3" "$6" $(($5 + 1)) "${@:7}"
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
ecg-vlm render simulated "$out/intervals" --limit 14000 --seed 12 --unreadable 0.06 "${all[@]}"
ecg-vlm render simulated "$out/intervals-mixed" --limit 11000 --seed 13 --unreadable 0.15 "${mixed[@]}"
ecg-vlm render simulated:PAC,SARRH,SVARR,PAC,NORM,SARRH,AFIB,SBRAD,NDT,SR "$out/rhythms" --limit 6000 --seed 14 "${all[@]}"
ecg-vlm render simulated "$out/last" --limit 5000 --seed 15 --unreadable 0.06 "${all[@]}"
ecg-vlm render simulated "$out/last-mixed" --limit 4000 --seed 16 --unreadable 0.15 "${mixed[@]}"
ecg-vlm render simulated "$out/forms" --limit 1700 --seed 17 --unreadable 0.06 "${all[@]}"
ecg-vlm render simulated "$out/forms-mixed" --limit 1300 --seed 18 --unreadable 0.15 "${mixed[@]}"
ecg-vlm render simulated:acute,any,any "$out/acute" --limit 1400 --seed 19 --unreadable 0.06 "${all[@]}"
ecg-vlm render simulated:acute,any,any "$out/acute-mixed" --limit 1000 --seed 20 --unreadable 0.15 "${mixed[@]}"

tune --out "$out/first" data.train="$out/clean" --max-steps 1500
settle second first all,mixed 150 1
lesson more second-settled more,more-mixed 1300 2 250
lesson words more-settled words,words-mixed 950 4 150
lesson company words-settled company,company-mixed 115 6 120 train.learning_rate=1.5e-3
lesson further company-settled further,further-mixed 350 8 110
begin intervals further-settled intervals,intervals-mixed,rhythms 779 10
lesson beats intervals-begun intervals,intervals-mixed,rhythms 466 11 360 train.reading=0.5
settle last beats-settled last,last-mixed 270 13 train.learning_rate=1.2e-3
settle forms last-settled forms,forms-mixed 90 14 train.learning_rate=8e-4
# One process, steps of 16 pages, and no reading heads: the lesson went on from the weights that had shipped.
OMP_NUM_THREADS=1 ecg-vlm finetune nano --resume --out "$out/acute-settled" model.from_scratch=false \
    model.base="$out/forms-settled" data.train="$out/acute,$out/acute-mixed" --max-steps 150 train.seed=15 train.patches=0 \
    train.reading=0 train.learning_rate=6e-4 train.schedule=cosine train.warmup=0.05 train.mixed_precision=false
# What ships is the mean of the weights before and after it: half of the lesson's gain, and nothing lost elsewhere.
python - "$out/forms-settled" "$out/acute-settled" <<'MEAN'
import shutil, sys
from pathlib import Path
from safetensors.torch import load_file, save_file

before, after = (Path(folder) for folder in sys.argv[1:])
shutil.copytree(after, after.with_name("mean"), dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoint-*"))
weights = [load_file(folder / "model.safetensors") for folder in (before, after)]
mean = {name: ((weights[0][name].float() + w.float()) / 2).to(w.dtype) for name, w in weights[1].items()}
save_file(mean, after.with_name("mean") / "model.safetensors", metadata={"format": "pt"})
MEAN
