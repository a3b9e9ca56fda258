"""Pictures for people to check: poses and heat on crops, and sheets of them.

contact_sheet.py  a grid of pictures with titles, captions and a legend
poses.py          poses, rings and heat drawn on a crop
predictions.py    a sheet of what several networks predict of the same people
"""
