"""How fast the server is, beside a plain one on the same weights."""
