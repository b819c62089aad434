"""Arms × seeds: run them, paired by seed, and say what the differences are worth.

study.py      the study file                      results.py   results.jsonl, the raw results
prepare.py    arms resolved and checked           analysis.py  from raw results to numbers
runner.py     runs in processes, resumable        words.py     how numbers are said
worker.py     one run in its process              tables.py    for the terminal and in Markdown
progress.py   the terminal while it goes on       page.py      index.html
command.py    `motif compare`
"""
