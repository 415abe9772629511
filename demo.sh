#!/usr/bin/env bash
# The whole road on simulated ECGs: pages -> data set -> LoRA on nano -> answers before and after -> report.
# Called by `make demo`. Ten minutes at most on two cores; everything lands in runs/demo.
set -euo pipefail
out=runs/demo
began=$(date +%s)
step() { printf '\n\033[1m%s\033[0m\n' "$*"; }

rm -rf "$out"
new=PACE,AFLT,WPW,BIGU
step "1/5  Simulate ECGs and render pages (new to nano: pacemaker, flutter, WPW, bigeminy)"
ecg-vlm render "simulated:$new,NORM" "$out/train" --limit 700 --width 672 --tasks rhythm,morphology,report --forms closed,open --closed 16 --seed 100 --workers 2
ecg-vlm render "simulated:$new,NORM" "$out/held-out" --limit 150 --width 672 --tasks rhythm,morphology,report --forms closed,open --closed 16 --seed 200 --workers 2
ecg-vlm render simulated:AFLT "$out/page.png" --width 1120 --seed 300

step "2/5  Tune nano with LoRA (recipes/quickstart.yaml)"
ecg-vlm finetune recipes/quickstart.yaml --out "$out/run"

step "3/5  Ask about one page that neither model has seen: $out/page.png"
question="What is the rhythm?"
before=$(ecg-vlm ask "$out/page.png" "$question")
after=$(ecg-vlm ask "$out/page.png" "$question" --model "$out/run")
printf '  %s\n  before tuning:  %s\n  after tuning:   %s\n' "$question" "$before" "$after"

step "4/5  Judge both on 150 held-out pages"
ecg-vlm evaluate "$out/run" --compare nano --data "$out/held-out" --out "$out/report"

step "5/5  Done in $(( ($(date +%s) - began) / 60 )) min $(( ($(date +%s) - began) % 60 )) s"
cat <<TEXT
  Nano, a small model of the Llama 3.2 Vision kind, had never heard of these four. A LoRA adapter taught it.
  Look at it:    $out/report/report.html   (open in a browser)
  Ask yourself:  .venv/bin/ecg-vlm ask $out/page.png "Is there atrial flutter on this ECG?" --model $out/run
  Your data:     .venv/bin/ecg-vlm render ptbxl:DIR pages --folds 1-8      (README, "Real records")
TEXT
