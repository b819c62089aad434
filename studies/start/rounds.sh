#!/usr/bin/env bash
# The study of rounds that go on (rounds.toml): its demonstrations, its runs, longer chains, and what they show.
#     studies/start/rounds.sh [RUNS, default runs/rounds]
# Interrupted at any time, the same command goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1
runs="${1:-runs/rounds}"
python studies/start/chain_rounds.py studies/start/whole.jsonl studies/start/early.jsonl
motif compare studies/start/rounds.toml --out "$runs"
studies/start/longer.sh "$runs"
mkdir -p studies/start/results
python studies/start/rounds_bars.py "$runs" | tee studies/start/results/rounds.jsonl
