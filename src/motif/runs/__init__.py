"""Run folders: the only package that knows the names and the contents of their files.

run_files.py       the names                        disk.py        atomic writes, checksums, locks
folder.py      writing a run                    read.py        reading one, finished or not
metrics.py     the numbers of a step            ledger.py      what a run has spent
checkpoint.py  all that a resumed run needs     weights.py     the trained weights
settings.py    which settings differ            provenance.py  which data and machine, and what of it has changed
result.py      what training returns            trackers.py    metrics sent elsewhere
"""
