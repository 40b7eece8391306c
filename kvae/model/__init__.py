"""The model: an encoder, a posterior, a prior, a decoder and a likelihood, and the objective that trains them.

`vae.py` computes with these parts; `assembly.py` puts them together, checks them and saves them. `fast_fit.py` and
`loop.py` bring the batches to the training step. Each kind of part has its own file or folder, with a table of the
names that a recipe can use.
"""
