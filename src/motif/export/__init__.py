"""Trained weights for others: a PEFT adapter, a merged model or a GGUF file, each with a card and read back.

source.py             what of a run is exported, and the recipe without what is nobody else's business
weights.py            writes the three formats
parity.py             reads them back with plain transformers and peft, and compares logits
base.py               what is known of the base model: where it is to be had, its licence
card.py               README.md
think_in_rounds.py    the script that goes with every export: the rounds in plain transformers
command.py, push.py   `motif export`
"""
