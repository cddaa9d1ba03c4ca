"""The engine turns texts into arrays. It knows nothing of Flask, HTTP or the environment."""
