"""How fast the server is, compared with a plain one on the same weights."""
