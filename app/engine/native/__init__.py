"""An encoder's forward in C, for x86 processors with AVX2 or better.

Texts are packed one after the other without padding, attention included. `compiler` makes a library for
each set of instructions out of the same source, `layout` the files and structures that it reads, `rounding`
the 8-bit weights, and `backend` puts them behind the engine's one verb.
"""
