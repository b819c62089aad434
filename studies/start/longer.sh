#!/usr/bin/env bash
# Chains of ten steps, twice as long as the longest of the training, at 3 and at 6 rounds: studies/start/longer.sh runs/rounds
# A run that has been tested is left alone.
set -euo pipefail
export OMP_NUM_THREADS=1
for run in "$1"/*/seed-*; do
    [ -f "$run/longer/results.json" ] || motif eval "$run" --rounds 3,6 --questions 400 --out "$run/longer" \
        --set data.chain.shortest=10 --set data.chain.longest=10 > /dev/null
done
