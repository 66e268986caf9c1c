"""
Off-screen camera images of a MuJoCo scene.

Chooses the OpenGL backend before MuJoCo is imported, so import this module, or anything of
this package, before `mujoco` itself.
"""

import ctypes
import os

_LIBRARIES = {'egl': 'libEGL.so.1', 'osmesa': 'libOSMesa.so.8'}


def _loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _choose_backend() -> str:
    """
    Set MUJOCO_GL, which MuJoCo reads once, when it is first imported; return the name wanted.

    A choice made by the user stands. Where its library is missing, OpenGL is switched off:
    MuJoCo would not even import otherwise, and physics needs no OpenGL.
    """
    chosen = os.environ.get('MUJOCO_GL', '').lower().strip()
    if not chosen:
        usable = [name for name, library in _LIBRARIES.items() if _loadable(library)]
        chosen = usable[0] if usable else 'egl'
    missing = chosen in _LIBRARIES and not _loadable(_LIBRARIES[chosen])
    os.environ['MUJOCO_GL'] = 'disable' if missing else chosen
    return chosen


BACKEND = _choose_backend()
# Mesa's software renderer: draw in the calling thread. The same pixels, and on a busy two-core
# machine frames come sooner than by handing tiles to threads that wait for a core.
os.environ.setdefault('LP_NUM_THREADS', '0')

import mujoco  # noqa: E402
import numpy as np  # noqa: E402

_REMEDY = (
    'on Debian or Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri, '
    'or apt-get install libosmesa6 and set MUJOCO_GL=osmesa'
)


class SimulationError(RuntimeError):
    """The simulator cannot work on this machine; the message says how to mend it."""


class CameraRenderer:
    """
    Renders the fixed cameras of one model.

    An OpenGL context belongs to one thread: make it, use it and close it in the same thread.
    """

    def __init__(self, model: mujoco.MjModel, image_size: tuple[int, int]) -> None:
        """
        Prepare for images of `image_size` (height, width) and of the same shape but smaller.

        :raises SimulationError: if OpenGL is not to be had.
        """
        self._model = model
        self._image_size = image_size
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._renderer(image_size)

    def render(self, data: mujoco.MjData, camera: str, size: tuple[int, int] | None = None
               ) -> np.ndarray:
        """
        Return the view of `camera` as (H, W, 3) uint8 RGB, H and W being `size`.

        :raises ValueError: if the camera is unknown, or `size` is larger than or of another
            aspect ratio than the native size (the field of view would differ).
        """
        self._camera_id(camera)
        renderer = self._renderer(self._checked_size(size))
        renderer.update_scene(data, camera)
        return renderer.render()

    def project(self, data: mujoco.MjData, points: np.ndarray, camera: str) -> np.ndarray:
        """
        Return (N, 2) float64 normalised image coordinates of (N, 3) points in `base`, metres.

        (0, 0) is the upper left corner of the image, (1, 1) the lower right one; points outside
        the view lie outside that range and points behind the camera are NaN.
        """
        camera_id = self._camera_id(camera)
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        right, up, back = (
            (points - data.cam_xpos[camera_id]) @ data.cam_xmat[camera_id].reshape(3, 3)).T
        depth = np.where(back < 0, -back, np.nan)
        half_height = np.tan(np.radians(self._model.cam_fovy[camera_id]) / 2)
        height, width = self._image_size
        u = 0.5 + right / depth / (2 * half_height * width / height)
        v = 0.5 - up / depth / (2 * half_height)
        return np.stack([u, v], axis=-1)

    def close(self) -> None:
        """Free the OpenGL contexts."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _camera_id(self, camera: str) -> int:
        camera_id = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        if camera_id < 0:
            known = ', '.join(self._model.camera(i).name for i in range(self._model.ncam))
            raise ValueError(f'camera {camera!r} is unknown; expected one of: {known}')
        return camera_id

    def _checked_size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        if size is None:
            return self._image_size
        (height, width), (full_height, full_width) = size, self._image_size
        fits = 0 < height <= full_height and 0 < width <= full_width
        if not fits or abs(height * full_width / (width * full_height) - 1) > 0.02:
            raise ValueError(
                f'size must have the shape of {full_height}x{full_width} and be no larger, found '
                f'{height}x{width}; render natively and resize with vla_policy_node.images')
        return int(height), int(width)

    def _renderer(self, size: tuple[int, int]) -> mujoco.Renderer:
        if size not in self._renderers:
            self._renderers[size] = _open(self._model, size)
        return self._renderers[size]


def _open(model: mujoco.MjModel, size: tuple[int, int]) -> mujoco.Renderer:
    if os.environ.get('MUJOCO_GL') == 'disable':
        cause = f'{_LIBRARIES[BACKEND]} not found' if BACKEND in _LIBRARIES else 'switched off'
        raise SimulationError(
            f'no OpenGL for camera images (MUJOCO_GL={BACKEND}: {cause}); {_REMEDY}')
    try:
        return mujoco.Renderer(model, *size)
    except (ImportError, AttributeError, OSError, RuntimeError, mujoco.FatalError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SimulationError(
            f'OpenGL failed to start for camera images (MUJOCO_GL={BACKEND}: {cause}); {_REMEDY}'
        ) from error
