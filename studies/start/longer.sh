#!/usr/bin/env bash
# Chains of 10 to 16 steps, twice as long as those of the training, at 3 and at 6 rounds: studies/start/longer.sh runs/rounds
set -euo pipefail
export OMP_NUM_THREADS=1
for run in "$1"/*/seed-*; do
    motif eval "$run" --rounds 3,6 --questions 400 --out "$run/longer" \
        --set data.chain.shortest=10 --set data.chain.longest=16 > /dev/null
done
