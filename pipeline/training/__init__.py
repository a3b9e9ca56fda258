"""Training of students and teachers, which share one loop.

settings.py           the settings of the parts; they load without torch
loop.py               epochs and steps, metrics, checkpoints: start reading here
losses.py             loss terms, and a student's criterion
heatmap_criterion.py  a teacher's criterion
optimisation.py       optimiser and learning rate
epoch_record.py       the losses of an epoch, copied from the device and checked
batch.py              the record of a batch, from the readers to the losses
sources.py            people and their views, from a teacher store or from annotations
data.py               views -> batches, in worker processes
images.py             training images, decoded strictly, compared with their digests, cached
view_order.py         order of an epoch's views: all people shuffled
block_order.py        order of an epoch's views: one group of shards after another
replacement.py        corrupt views, replaced by other views of the same person
corrupt_ledger.py     counts corrupt views, and stops a training that has too many
"""
