"""Studies: arms × seeds, paired by seed, and what the differences are worth.

`study` reads the file, `run` checks every arm, `runner` trains each run in a process of its own (`worker`), and
`analysis` turns the raw `results` into the numbers that `words` and `page` show.
"""
