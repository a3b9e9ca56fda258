"""Sweeps: many trainings that answer one question, measured alike and put into one table.

sweep.py        a sweep's TOML file, and the arms and runs that it describes
budget.py       what a training shows, reads, writes and takes, before it begins
processes.py    several trainings at once, each a process of its own
table.py        the rows of a sweep, as Markdown, CSV and JSON
plot.py         validation mean OKS against person-views
"""
