"""Pictures for people to check: poses and heat on crops, and sheets of them.

contact_sheet.py   a grid of pictures with titles, captions and a legend
poses.py           poses, rings and heat drawn on a crop
on_photographs.py  boxes, poses and labels of everyone in a photograph or a frame
shown_people.py    the people that a picture shows, and where their images are
teacher_answers.py a teacher's keypoints and heatmaps of them, from a store or predicted now
beside_teacher.py  a student's pose and simulated heatmaps beside the truth and a teacher's
attention.py       the attention of keypoint tokens over a person
predictions.py     a sheet of what several networks predict of the same people
"""
