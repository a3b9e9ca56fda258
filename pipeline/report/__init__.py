"""A page about runs: one HTML file that needs no network, for a screen or a phone.

run_facts.py    settings, metrics and provenance of a run folder
figures.py      AP, OKS and PCK of runs with intervals, and their differences from the first
charts.py       places of lines, ticks and bars in the units of an SVG picture
curves.py       the charts of a run's losses and validations
settings.py     the settings in which runs differ from each other and from the defaults
people.py       pictures of people: the truth, every student, and the teacher
teacher.py      poses of a store's teacher of these people, stored or predicted
page.py         the page itself, by the template report.html.jinja
"""
