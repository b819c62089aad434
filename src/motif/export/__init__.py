"""`motif export`: trained weights for others as a PEFT adapter, a merged model or a GGUF file (docs/export.md).

run.py                writes each form, reads it back, describes it, and puts it in place
choices.py            which forms and weights can be asked for
source.py             the weights to export, and the recipe without private settings
formats.py            writes adapter and merged model
gguf.py               writes GGUF files
parity.py             reads them back with plain transformers and peft, and compares logits
base_model.py         facts about the base model: where to get it, its licence
card.py               the model card, README.md
think_in_rounds.py    the script that goes with every export: the rounds in plain transformers
hub.py                uploads an export
"""
