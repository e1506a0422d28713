"""Parameters in one flat vector."""

import torch

from streamgen.models.flat import flat_size, flat_views


def test_each_parameter_has_a_line_of_its_own_and_shares_the_vectors_memory() -> None:
    shapes = {"a_23": (2, 3), "b_16": (16,), "c_1": (1,)}
    assert flat_size(shapes) == 16 + 16 + 16
    flat_P = torch.zeros(48)
    views = flat_views(shapes, flat_P)
    assert {name: tuple(view.shape) for name, view in views.items()} == shapes
    for n, view in enumerate(views.values()):
        view.fill_(n + 1.0)
    assert flat_P.tolist() == [1.0] * 6 + [0.0] * 10 + [2.0] * 16 + [3.0] + [0.0] * 15
