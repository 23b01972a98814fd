"""Between a convolution and a locally connected layer: one kernel for each region of the image."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from feedalign.checks import instance_of
from feedalign.geometry import Geometry


class TiledConv2d(nn.Module):
    """A convolution whose output is cut into a grid of regions, each with a kernel and a bias of its own.

    With one region this is a convolution; with as many regions as positions it is a locally connected layer. The number
    of regions changes which weights are shared, not which positions are connected. All kernels begin as copies of the
    kernel of the convolution that is given, and only learning makes them differ.

    Args:
        convolution: gives shape and initial weights; it is not changed.
        in_shape: (channels, height, width) of the input.
        regions: number of regions along both axes, or along each; they must divide the output's height and width.

    Attributes:
        weight: [regions, out, in / groups, height, width], regions row by row.
        bias: [regions, out], or None.
        geometry: shape of the layer, for `feedalign.theory.convolution`.

    Raises:
        ArgumentError: the convolution is no `Conv2d` or does not fit in_shape (see `Geometry.of`), or the regions do
            not divide the output.
    """

    def __init__(self, convolution: nn.Conv2d, in_shape: tuple[int, int, int], regions: int | tuple[int, int]) -> None:
        super().__init__()
        instance_of("convolution", convolution, nn.Conv2d)
        grid = (regions, regions) if isinstance(regions, int) else regions
        self.geometry = Geometry.of(convolution, in_shape, grid)
        kernels = self.geometry.kernel_shape[0]
        self.weight = nn.Parameter(convolution.weight.detach().repeat(kernels, 1, 1, 1, 1))
        bias = convolution.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().repeat(kernels, 1))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out rows columns"]:
        """Apply to every region its kernel."""
        return self.with_kernels(x, self.weight, self.bias)

    def with_kernels(
        self, x: Float[Tensor, "batch channels height width"], weight: Tensor, bias: Tensor | None
    ) -> Float[Tensor, "batch out rows columns"]:
        """Apply other kernels and biases, in the shape of the layer's own, to the regions."""
        shape = self.geometry
        patches = functional.unfold(x, shape.kernel_size, shape.dilation, shape.padding, shape.stride)
        out, height, width = shape.out_shape
        across, along = shape.regions
        tile = height // across, width // along
        # Features of a patch are channels first, so those of one group lie together.
        patches = patches.reshape(len(x), shape.groups, -1, across, tile[0], along, tile[1])
        patches = patches.permute(3, 5, 1, 2, 0, 4, 6).flatten(4).flatten(0, 2)  # [region·group, feature, batch·tile]
        kernels = weight.reshape(len(patches), out // shape.groups, -1)
        found = kernels @ patches
        if bias is not None:
            found = found + bias.reshape(len(patches), -1, 1)
        found = found.reshape(across, along, out, len(x), *tile)
        return found.permute(3, 2, 0, 4, 1, 5).reshape(len(x), out, height, width)

    def extra_repr(self) -> str:
        """Show the shape."""
        return f"{self.geometry}, bias={self.bias is not None}"
