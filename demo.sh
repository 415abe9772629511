#!/usr/bin/env bash
# The whole road on simulated ECGs: pages -> data set -> LoRA on nano -> answers before and after -> report.
# Called by `make demo`. Ten minutes at most on two cores; everything lands in runs/demo.
set -euo pipefail
out=runs/demo
began=$(date +%s)
step() { printf '\n\033[1m%s\033[0m\n' "$*"; }

rm -rf "$out"
page=(--layout "6x2,cabrera,50mm/s" --style fax)
lesson=simulated:NORM,AFIB,AFLT,PACE,CLBBB,CRBBB,WPW,IMI,LVH,STACH
step "1/5  Simulate ECGs and render pages as a hospital prints them that nano hardly knows (6x2, Cabrera, 50 mm/s, fax)"
ecg-vlm render "$lesson" "$out/train" --limit 700 --width 784 --tasks rhythm,morphology --forms closed,open --closed 16 --seed 100 --workers 2 "${page[@]}"
ecg-vlm render "$lesson" "$out/held-out" --limit 150 --width 784 --tasks rhythm,morphology --forms closed,open --closed 16 --seed 200 --workers 2 "${page[@]}"
ecg-vlm render simulated:AFLT "$out/page.png" --width 1120 --seed 300 "${page[@]}"

step "2/5  Tune nano with LoRA (recipes/configs/quickstart.yaml)"
ecg-vlm finetune recipes/configs/quickstart.yaml --out "$out/run"

step "3/5  Ask about one page that neither model has seen: $out/page.png"
question="What is the rhythm?"
before=$(ecg-vlm ask "$out/page.png" "$question")
after=$(ecg-vlm ask "$out/page.png" "$question" --model "$out/run")
printf '  %s\n  before tuning:  %s\n  after tuning:   %s\n' "$question" "$before" "$after"

step "4/5  Judge both on 150 held-out pages"
ecg-vlm evaluate "$out/run" --compare nano --data "$out/held-out" --out "$out/report"

step "5/5  Done in $(( ($(date +%s) - began) / 60 )) min $(( ($(date +%s) - began) % 60 )) s"
cat <<TEXT
  Nano, a small model of the Llama 3.2 Vision kind, had hardly seen such pages. A LoRA adapter taught it this printout.
  Look at it:    $out/report/report.html   (open in a browser)
  Ask yourself:  .venv/bin/ecg-vlm ask $out/page.png "Is there atrial flutter on this ECG?" --model $out/run
  Your data:     .venv/bin/ecg-vlm render ptbxl:DIR pages --folds 1-8      (README, "Real records")
TEXT
