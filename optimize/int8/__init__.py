"""INT8 quantisation of ONNX files: real calibration data, sensitive layers kept in float, a bound on quality."""
