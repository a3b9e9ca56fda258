"""What trains a network: the same loop for students and teachers.

block_order.py     which views an epoch uses, shard by shard
corrupt_ledger.py  the account of corrupt views
data.py            views -> batches, in worker processes
epoch_record.py    the losses of an epoch, read back and checked
images.py          images, decoded strictly and kept
loop.py            epochs and steps, metrics, checkpoints: start reading here
losses.py          loss terms
objectives.py      network and batch -> loss
optimisation.py    optimiser and learning rate
replacement.py     other views in the place of corrupt ones
sources.py         people and their views, from a teacher store or from annotations
token_targets.py   whether stored tokens can be the targets of a student
view_order.py      which views an epoch uses, all shuffled
"""
