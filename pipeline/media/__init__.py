"""Photographs and videos as people have them: found, decoded upright, and written.

inputs.py       names of photographs, folders, videos and webcams -> what there is to read
video_files.py  frames of a video file or of a webcam; a video file written frame by frame
"""
