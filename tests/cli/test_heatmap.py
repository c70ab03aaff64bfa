"""Pixel facts about heat maps."""

import numpy as np
import pytest
import torch

from dlb_core.viz.colour import colour_limit, colours
from dlb_core.viz.heatmap import CAPTION, MARGIN, enlargement, heatmap

TOP = MARGIN + CAPTION


def test_zero_is_white_and_the_signs_are_red_and_blue():
    relevance = torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]])
    row = colours(relevance, 2.0)[0].astype(int)
    assert row[2].tolist() == [255, 255, 255]
    for negative in row[:2]:
        assert negative[2] > negative[0]
    for positive in row[3:]:
        assert positive[0] > positive[2]
    light = row.sum(1)
    assert light[0] < light[1] < light[2] > light[3] > light[4]


def test_the_scale_is_symmetric():
    relevance = torch.tensor([[-4.0, 1.0]])
    assert colour_limit(relevance) == 4.0
    pixels = colours(relevance, 4.0)
    assert (pixels[0, 1] == colours(torch.tensor([[1.0]]), 4.0)[0, 0]).all()
    assert (colours(torch.tensor([[9.0]]), 4.0) == colours(torch.tensor([[4.0]]), 4.0)).all()


def test_one_pixel_does_not_make_thousands_white():
    relevance = torch.ones(100, 100)
    relevance[0, 0] = 1e6
    assert colour_limit(relevance) == 1.0
    assert colour_limit(torch.zeros(4, 4)) == 0.0
    sparse = torch.zeros(100, 100)
    sparse[3, 3] = 2.0
    assert colour_limit(sparse) == 2.0


@pytest.mark.parametrize(
    ("shape", "factor"), [((8, 8), 32), ((224, 224), 2), ((256, 300), 1), ((1000, 1000), 1), ((1, 4000), 1)]
)
def test_enlargement(shape, factor):
    assert enlargement(shape) == factor
    assert min(shape) * factor >= 256 or max(shape) * (factor + 1) > 2048


def test_panels_lie_side_by_side_without_smoothing():
    relevance = torch.tensor([[[1.0, 0.0], [-1.0, 0.5]]])
    image = torch.tensor([[[0.0, 1.0], [0.5, 0.25]]])
    pixels = np.asarray(heatmap(relevance, image))
    size = 256
    left = pixels[TOP : TOP + size, MARGIN : MARGIN + size]
    right = pixels[TOP : TOP + size, 2 * MARGIN + size : 2 * MARGIN + 2 * size]
    expected = colours(relevance[0], 1.0)
    for y in (0, 1):
        for x in (0, 1):
            block = np.s_[y * 128 : (y + 1) * 128, x * 128 : (x + 1) * 128]
            assert (right[block] == expected[y, x]).all()
            assert (left[block] == round(float(image[0, y, x]) * 255)).all()


def test_channels_are_summed_and_values_stretched():
    relevance = torch.stack([torch.full((4, 4), 1.0), torch.full((4, 4), -1.0), torch.zeros(4, 4)])
    pixels = np.asarray(heatmap(relevance, torch.linspace(-3, 5, 48).reshape(3, 4, 4)))
    right = pixels[TOP : TOP + 256, 2 * MARGIN + 256 : 2 * MARGIN + 512]
    assert (right == 255).all()
    left = pixels[TOP : TOP + 256, MARGIN : MARGIN + 256]
    assert left.min() == 0
    assert left.max() == 255


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match="no image"):
        heatmap(torch.zeros(4))
    with pytest.raises(ValueError, match=r"\[1 or 3, H, W\]"):
        heatmap(torch.zeros(4, 4), torch.zeros(2, 4, 4))
