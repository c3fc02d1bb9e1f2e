"""The classic class interface of Gaussian-splatting rasterisers, on top of :func:`gaussian_rasterization.rasterize`."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .camera import intrinsics_from_projection, transform_points
from .functional import rasterize
from .projection import rotation_polynomial
from .settings import RasterSettings


class GaussianRasterizationSettings(NamedTuple):
    """One camera in the classic form. Matrices are transposed: they act on row vectors.

    Attributes:
        image_height, image_width: Pixels.
        tanfovx, tanfovy: tan(fov / 2); the focal lengths are W / (2 tanfovx) and H / (2 tanfovy).
        bg: (C,) background.
        scale_modifier: Factor on all scales.
        viewmatrix: (4, 4) transposed reference -> camera.
        projmatrix: (4, 4) transposed projection times view; the principal point is taken from it, the rest must be the
            perspective projection of ``tanfovx`` and ``tanfovy``.
        sh_degree, campos, prefiltered: Accepted for compatibility; ``campos`` (3,) decides which way normals face.
        debug: Raise on non-finite input, see :class:`RasterSettings`.
    """

    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: Tensor
    scale_modifier: float
    viewmatrix: Tensor
    projmatrix: Tensor
    sh_degree: int = 0
    campos: Tensor | None = None
    prefiltered: bool = False
    debug: bool = False


class GaussianRasterizer(nn.Module):
    """Callable with the argument names of the classic rasteriser; any number of channels.

    Differences from the original: spherical harmonics and precomputed covariances are refused, ``means2D`` gets no gradient
    (it only served densification), an empty scene shows the background, and there is no tile artefact unless ``options``
    asks for it.

    Args:
        raster_settings: The camera.
        options: Further options; near, thresholds, ``tile_compat`` and so on. Its scale_modifier and debug are overruled.
        backend: As in :func:`rasterize`.
    """

    def __init__(
        self,
        raster_settings: GaussianRasterizationSettings,
        options: RasterSettings | None = None,
        backend: str | None = None,
    ):
        super().__init__()
        self.raster_settings = raster_settings
        self.options = options or RasterSettings()
        self.backend = backend

    def markVisible(self, positions: Tensor) -> Tensor:  # noqa: N802 (classic name)
        """(N,) bool, whether positions (N, 3) are deeper than the near plane."""
        with torch.no_grad():
            return transform_points(positions, self.raster_settings.viewmatrix.T)[2] > self.options.near

    def forward(
        self,
        means3D: Tensor,  # noqa: N803 (classic names)
        means2D: Tensor | None,  # noqa: N803
        opacities: Tensor,
        shs: Tensor | None = None,
        colors_precomp: Tensor | None = None,
        scales: Tensor | None = None,
        rotations: Tensor | None = None,
        cov3D_precomp: Tensor | None = None,  # noqa: N803
        extra_attrs: Tensor | None = None,
        norm3Ds_precomp: Tensor | None = None,  # noqa: N803
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Render.

        Args:
            means3D: (N, 3) metres.
            means2D: Ignored.
            opacities: (N, 1) or (N,).
            shs: Must be None.
            colors_precomp: (N, C).
            scales: (N, 3) metres.
            rotations: (N, 4) w, x, y, z.
            cov3D_precomp: Must be None.
            extra_attrs: (N, E) blended like colours over a background of 0, or None.
            norm3Ds_precomp: (N, 3) normals in the reference frame to blend instead of those of the Gaussians, or None.

        Returns:
            Colour (C, H, W), depth (1, H, W), unit normals of the flattest axis (3, H, W) or 0, alpha (1, H, W), radii (N,)
            int32 and extra (E, H, W).

        Raises:
            ValueError: If spherical harmonics or covariances are given, or colours, scales or rotations are missing.
        """
        if shs is not None or colors_precomp is None:
            raise ValueError('GaussianRasterizer: give colors_precomp (N, C); spherical harmonics (shs) are not supported')
        if cov3D_precomp is not None or scales is None or rotations is None:
            raise ValueError('GaussianRasterizer: give scales (N, 3) and rotations (N, 4); cov3D_precomp is not supported')
        view = self.raster_settings
        to_camera = view.viewmatrix.T
        projection = view.projmatrix.T.double() @ torch.linalg.inv(to_camera.double())
        # intrinsics in half precision would be off by parts of a pixel
        projection = projection.to(means3D.device, torch.promote_types(means3D.dtype, torch.float32))
        size = (int(view.image_width), int(view.image_height))
        self._check_projection(projection)
        K = intrinsics_from_projection(projection, float(view.tanfovx), float(view.tanfovy), *size)

        if extra_attrs is None:
            extra_attrs = means3D.new_zeros(len(means3D), 0)
        normals = norm3Ds_precomp
        if normals is None:
            normals = self._normals(means3D, scales, rotations, to_camera)
        payload = torch.cat([colors_precomp, extra_attrs, normals], 1)
        background = torch.nn.functional.pad(view.bg.to(payload).reshape(-1), (0, extra_attrs.shape[1] + 3))
        options = dict(vars(self.options), scale_modifier=float(view.scale_modifier), debug=bool(view.debug))
        out = rasterize(
            means3D,
            rotations,
            scales,
            opacities.reshape(-1),
            payload,
            to_camera[None],
            K[None],
            *size,
            background,
            RasterSettings(**options),
            self.backend,
        )
        image = out.features[0].movedim(-1, 0)
        color, extra, normal = image.split([colors_precomp.shape[1], extra_attrs.shape[1], 3])
        normal = torch.nn.functional.normalize(normal, dim=0, eps=1e-12)
        return color, out.depth, normal, out.alpha, out.radii[0], extra

    def _check_projection(self, projection: Tensor) -> None:
        """Raises ValueError unless a matrix (camera frame -> clip space, column vectors) is the camera that is drawn."""
        view = self.raster_settings
        want = torch.zeros(4, 4, dtype=torch.float64)
        want[0, 0], want[1, 1], want[3, 2] = 1 / float(view.tanfovx), 1 / float(view.tanfovy), 1.0
        got = projection.detach().double().cpu()
        # the depth row is not used
        rows = got[[0, 1, 3]] - want[[0, 1, 3]]
        rows[0, 2] = rows[1, 2] = 0.0
        if bool((rows.abs() > 1e-2 * want.amax()).any()):
            shown = [[round(x, 4) for x in row] for row in got.tolist()]
            raise ValueError(
                'GaussianRasterizer: projmatrix times the inverse of viewmatrix must be a perspective projection with [0, 0] = '
                f'1 / tanfovx = {float(want[0, 0]):.4f}, [1, 1] = 1 / tanfovy = {float(want[1, 1]):.4f} and the last row '
                f'(0, 0, 1, 0); got {shown}. Orthographic, mirrored and skewed cameras are not supported; is projmatrix '
                'transposed, as viewmatrix is?'
            )

    def _normals(self, means: Tensor, scales: Tensor, rotations: Tensor, to_camera: Tensor) -> Tensor:
        """Axis of the smallest scale (of equal ones: x) in the reference frame, (N, 3), turned towards the camera."""
        x, y, z = scales.unbind(-1)
        axis = torch.where((z < x) & (z < y), 2, torch.where((y < x) & (y < z), 1, 0))
        normals = rotation_polynomial(rotations).gather(2, axis[:, None, None].expand(-1, 3, 1))[..., 0]
        centre = self.raster_settings.campos
        if centre is None:
            centre = -to_camera[:3, :3].T @ to_camera[:3, 3]
        away = ((means - centre.to(means)) * normals).sum(-1, keepdim=True) > 0
        return torch.where(away, -normals, normals)
