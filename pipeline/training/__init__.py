"""What trains a network: the same loop for students and teachers.

settings.py           the settings of the parts; they load without torch
loop.py               epochs and steps, metrics, checkpoints: start reading here
losses.py             loss terms, and a student's criterion
heatmap_criterion.py  a teacher's criterion
optimisation.py       optimiser and learning rate
epoch_record.py       the losses of an epoch, read back and checked
batch.py              the record of a batch, from the readers to the losses
sources.py            people and their views, from a teacher store or from annotations
data.py               views -> batches, in worker processes
images.py             images, decoded strictly and kept
view_order.py         which views an epoch shows: all shuffled
block_order.py        the same, shard by shard
replacement.py        other views in the place of corrupt ones
corrupt_ledger.py     the account of corrupt views
"""
