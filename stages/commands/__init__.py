"""The commands of `distil`, part of the command line as `cli.py`: parse, call one stage, print.

training.py           cache-teacher, train-student, train-teacher
evaluation.py         evaluate, compare
report.py             report
prediction.py         predict
export.py             export
ablation.py           ablate
store.py              store and the commands below it
benchmark.py          benchmark and the commands below it
settings.py           settings: the settings of any command
drawing.py            draw-people, demo; they load click alone
command_map.py        commands and options as --help shows them; errors on one line
options.py            options made from the models of the settings; inputs that must exist
terminal.py           progress of a stage; the shape of tables of figures
evaluation_tables.py  tables of evaluate, compare and export
ablation_tables.py    tables of ablate
benchmark_tables.py   tables of benchmark
limit_tables.py       tables of benchmark train, loader and inference: figures beside limits

No logic lives here. A command is imported when it is first needed, and its stage once its settings
and inputs are checked: `distil --help` loads click alone, and a typo does not wait for torch.
"""
