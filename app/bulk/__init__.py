"""A whole corpus through the encoder: rows of files in, Parquet with vectors out.

Needs requirements-bulk.txt, except for `batches`, which the server uses: OpenAI's files and batches. The
work is cut into parts, each a run of rows of one file that is read, embedded and written by itself, so that
it can be done here or on any node of a cluster, and again after an interruption.
"""
