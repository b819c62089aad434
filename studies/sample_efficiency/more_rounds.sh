#!/usr/bin/env bash
# More rounds at test than in training: the recommended arm's trained adapters at 3 and at 4 rounds.
#   studies/sample_efficiency/more_rounds.sh runs/sample_efficiency > studies/sample_efficiency/results/more_rounds.jsonl
set -euo pipefail
export OMP_NUM_THREADS=1
for run in "$1"/recommended/seed-*; do
    motif eval "$run" --rounds 3,4 --samples 1 --temperature 1 --questions 200 --json "$run/more_rounds.json" > /dev/null
    python - "$run" <<'PYTHON'
import json
import sys

rows = json.load(open(sys.argv[1] + "/more_rounds.json"))
print(json.dumps({"run": sys.argv[1].rsplit("/", 1)[1]} | {name: rows[name]["accuracy"] for name in ("rounds_3", "rounds_4")}))
PYTHON
done
