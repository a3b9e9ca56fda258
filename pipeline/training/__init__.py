"""Training of students and teachers, which share one loop.

settings.py           the settings of the parts; they load without torch
loop.py               epochs and steps, metrics, checkpoints: start reading here
starting.py           the start: what it needs is said, what does not fit is refused
training_step.py      forward, backward and update of one batch, whole or in parts
training_setup.py     what one training is made of, besides its run folder
distributed.py        the processes of a training that torchrun started
global_batch_norm.py  batch norm over the batches of all processes
epoch_record.py       the losses of an epoch, kept on the device until they are read
stop_request.py       SIGTERM and Ctrl-C, which end a training after its checkpoint
losses.py             the terms of a student's loss, and their sum
loss_parts.py         what the terms need besides a batch
regression_losses.py  distances between keypoints and targets
residual_flow.py      regression under a learned density of errors (RLE)
heatmap_losses.py     distances between Gaussians, scores or heatmaps and heatmaps
moment_losses.py      divergence of Gaussians from the moments of heatmaps
covariance_losses.py  likelihood of keypoints under a rotated Gaussian
score_losses.py       OKS as the target of scores
token_losses.py       distances between tokens, and the projector
heatmap_criterion.py  a teacher's criterion
optimisation.py       optimiser and learning rate
preflight.py          memory and time that a training needs, before its first step
largest_batch.py      the largest batch that fits the memory
schedule_warnings.py  settings of a schedule under which a training can hardly learn
batch.py              the record of a batch, from the readers to the losses
sources.py            people of annotations and their views
stored_people.py      people of a teacher store, the source of a training from one
store_sources.py      their views: new ones, the stored ones, these and their mirror images
live_teacher.py       views that the teacher itself predicts in every step
data.py               views -> batches, in worker processes
store_data.py         views of a store -> batches with the teacher's predictions
augmentation.py       changes of the crops alone: colours, a hidden part
metric_sinks.py       TensorBoard and Weights & Biases beside metrics.jsonl
held_views.py         views kept in memory: gathered on the device, or drawn from RAM
holding.py            which views a training keeps in memory
images.py             training images, decoded strictly, compared with their digests, cached
view_order.py         order of an epoch's views: all people shuffled, or shard by shard
corrupt_views.py      corrupt views, replaced by others of the same person, counted and bounded
"""
