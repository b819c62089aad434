"""Run folders: the only package that knows the contents of their files. Their names are in `run_files.py`, below all.

folder.py      writing a run                    read.py        reading one, finished or not
disk.py        atomic writes, checksums, locks  ledger.py      what a run has spent
metrics.py     the numbers of a step            weights.py     the trained weights
checkpoint.py  all that a resumed run needs     provenance.py  which data and machine, and what of it has changed
settings.py    which settings differ            trackers.py    metrics sent elsewhere
result.py      what training returns
"""
