"""The model: `vae.py` composes an encoder, a posterior, a prior, a decoder and a likelihood; an objective trains them.

`assembly.py` puts the parts together, checks and saves them. `fast_fit.py` and `loop.py` are about how batches reach
the training step. Each kind of part stands in a file of its own, with a table of names that a recipe may use.
"""
