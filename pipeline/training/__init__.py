"""Training of students and teachers, which share one loop.

settings.py           the settings of the parts; they load without torch
loop.py               epochs and steps, metrics, checkpoints: start reading here
losses.py             loss terms, and a student's criterion
heatmap_criterion.py  a teacher's criterion
optimisation.py       optimiser and learning rate
batch.py              the record of a batch, from the readers to the losses
sources.py            people and their views, from a teacher store or from annotations
data.py               views -> batches, in worker processes
images.py             training images, decoded strictly, compared with their digests, cached
view_order.py         order of an epoch's views: all people shuffled, or shard by shard
corrupt_views.py      corrupt views, replaced by others of the same person, counted and bounded
"""
