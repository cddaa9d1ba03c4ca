"""Lower floor: texts in, arrays out. No Flask, no HTTP word, no environment in here."""
