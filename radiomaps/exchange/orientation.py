"""Orientation of the images of other data sets, by modality.

A picture of UrbanRadio3D has n rows. Files of path loss hold the voxel (X, Y) at row n-1-X, column Y; files of time and
direction of arrival at row n-1-Y, column X. Ours are `[y, x]`, x east, y north: X and Y are indices of x and y.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

__all__ = ["PICTURES", "from_picture", "to_picture"]

Array = NDArray[Any]

#: From a picture to `[y, x]` by kind: "transposed" are files of path loss, "upright" all others.
PICTURES: dict[str, Callable[[Array], Array]] = {
    "transposed": lambda picture: picture[::-1].T,
    "upright": lambda picture: picture[::-1],
}
_KINDS = {"path_gain_db": "transposed"}


def from_picture(picture: Array, variable: str) -> Array:
    """Convert a published picture of this variable to a field `[y, x]`.

    >>> import numpy as np
    >>> picture = np.zeros((4, 4), int)
    >>> picture[4 - 1 - 2, 1] = 7                         # path loss, X = 2, Y = 1
    >>> int(from_picture(picture, "path_gain_db")[1, 2])
    7
    """
    return PICTURES[_KINDS.get(variable, "upright")](picture)


def to_picture(field: Array, variable: str) -> Array:
    """Convert a field `[y, x]` to the orientation of published pictures of this variable. Inverse of `from_picture`."""
    return field.T[::-1] if _KINDS.get(variable) == "transposed" else field[::-1]
