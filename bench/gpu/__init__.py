"""`make bench-gpu`: full-size networks with random weights on one GPU, in one folder that can be copied alone.

It needs torch (2.11 or newer), transformers and numpy, and nothing else of this project; onnxruntime (with onnx and
onnxscript) is used where it is. On a machine without a checkout: copy this folder there, then run `python gpu`.
"""
