"""The kinds of text the embedded chat model is trained on, one module each.

Every kind is a function ``(rng) -> Example``. The grammar behind them is in ``grammar``, the shared vocabulary in ``words``.
"""
