"""Networks that no package carries, written from their papers for the engines of the same names: Wav2Lip, the First
Order Motion Model, Xception as a manipulation detector, SadTalker's motion stage.

The one invariant: parameter names and shapes are those of the published checkpoints, which load without a conversion.
"""
