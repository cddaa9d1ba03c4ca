"""An encoder's forward pass in C, for x86 processors with AVX2 or better.

Texts are packed one after the other without padding, also in attention. `compiler` makes a library for each
instruction set from the same source, `layout` defines the files and structures that the library reads,
`rounding` makes 8-bit weights, and `backend` runs all of it as an engine.
"""
