#!/usr/bin/env bash
# The circuit recipe with three training seeds, in a few minutes on one core.
#   pip install 'motif-rl[circuit]' && studies/circuit/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1
for seed in 0 1 2; do
  motif train circuit --set train.seed=$seed --out runs/circuit-$seed --resume
done
python studies/circuit/collect.py runs/circuit-0 runs/circuit-1 runs/circuit-2
