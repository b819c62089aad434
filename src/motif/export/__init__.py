"""Export: a PEFT adapter, a merged model or a GGUF file, with a card, read back.

`run` writes the files into a folder beside the target, compares their logits with the trained policy (`parity`), and
only then puts them in place.
"""
