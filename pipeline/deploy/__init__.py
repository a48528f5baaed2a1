"""A trained segmenter on folders and videos, ONNX export, Cityscapes server files."""
