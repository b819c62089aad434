#!/usr/bin/env bash
# The arms that others propose, from nothing to the tables: models, pilots of learning rates, studies, longer chains, pages.
#     studies/sample_efficiency/arms.sh [chains] [sums] [longer]          (all three, if none is named)
#     WORKERS=2 RUNS=runs/arms                                            runs at once, and where they lie
# Interrupted at any time, the same command goes on where it stopped. What it takes: README.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
here=studies/sample_efficiency runs="${RUNS:-runs/arms}" workers="${WORKERS:-2}"

study() {
    motif compare "$here/$1.toml" --workers "$workers" --out "$runs/$1"
    mkdir -p "$here/results/$1"
    cp "$runs/$1/results.jsonl" "$here/results/$1/results.jsonl"
    motif compare "$here/$1.toml" --from "$here/results/$1/results.jsonl" --out "$here/results/$1" > /dev/null
}

tuned() {
    motif compare "$here/$1_rates.toml" --workers "$workers" --out "$runs/$1_rates"
    cp "$runs/$1_rates/results.jsonl" "$here/pilots/$1_rates.jsonl"
    python "$here/arms.py"
}

for task in "${@:-chains sums longer}"; do
    for one in $task; do
        case "$one" in
        chains)
            tuned chains
            study chains
            ;;
        sums)
            [ -f "$here/sums/model/warm_start.json" ] ||
                python "$here/sums/make_sums_model.py" --out "$here/sums/model"
            tuned sums
            study sums
            ;;
        longer)
            [ -f "$here/longer/model/warm_start.json" ] ||
                python "$here/make_model.py" --out "$here/longer/model" --longest 30 --positions 512
            study longer
            python "$here/longer.py" "$runs/longer" > "$here/results/longer/longer.jsonl"
            ;;
        *) echo "arms.sh: $one is none of chains, sums, longer" >&2 && exit 2 ;;
        esac
    done
done
python tools/pages.py
