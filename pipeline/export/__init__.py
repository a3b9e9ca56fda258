"""Students as ONNX files: one graph from the pixels of a crop to keypoints and scores.

runtime.py        onnxruntime: sessions, and inputs of any model
tracing.py        a module of torch -> an ONNX model
student_graph.py  a student with normalisation and decoding -> an exported student
student_file.py   an exported student opened, with the description that it carries
parity.py         how far an exported student is from its run
quantisation.py   an exported student in int8
model_card.py     what is said of an exported student, as Markdown
hub.py            file and card on the Hugging Face hub
"""
