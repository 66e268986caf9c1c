"""Camera images show the scene where it is, and a machine without OpenGL is told what to do."""

import os
import subprocess
import sys

import numpy as np
import pytest

from vla_policy_node.simulation import layout
from vla_policy_node.simulation import parse_task
from vla_policy_node.simulation import SimulationError
from vla_policy_node.simulation import TabletopSim
from vla_policy_node.simulation.scene import BLOCK_RGB

_WITHOUT_LIBRARIES = """
import ctypes

class WithoutOpenGL(ctypes.CDLL):
    def __init__(self, name, *args, **kwargs):
        if name and ('EGL' in str(name) or 'OSMesa' in str(name)):
            raise OSError(f'{name}: cannot open shared object file')
        super().__init__(name, *args, **kwargs)

ctypes.CDLL = WithoutOpenGL
from vla_policy_node.simulation import SimulationError, TabletopSim
TabletopSim(image_size=None).step(0.2)
try:
    TabletopSim()
except SimulationError as error:
    print(error)
"""


@pytest.fixture(scope='module')
def sim():
    """Return a simulator with its camera."""
    simulator = TabletopSim()
    yield simulator
    simulator.close()


def test_a_frame_is_rgb_of_the_size_asked_for(sim):
    assert sim.render().shape == (480, 640, 3)
    assert sim.render().dtype == np.uint8
    assert sim.render(size=(240, 320)).shape == (240, 320, 3)


def test_the_same_seed_gives_the_same_pixels(sim):
    sim.reset(4)
    first = sim.render()
    sim.reset(5)
    assert (sim.render() != first).any()
    sim.reset(4)
    np.testing.assert_array_equal(sim.render(), first)


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_block_tops_are_projected_to_within_a_pixel_of_where_they_are_seen(sim, seed):
    sim.reset(seed, parse_task('pick red'))
    sim.set_pose_target((0.28, 0.0, 0.32), (0, 1, 0, 0))  # out of the view
    sim.step(2.0)
    frame = sim.render().astype(int)
    for colour, centre in sim.state().blocks.items():
        u, v = (sim.project([centre + (0, 0, 0.02)]) * (640, 480))[0]
        top = frame[int(v), int(u)]
        rows, columns = np.nonzero(np.abs(frame - top).max(axis=-1) <= 8)
        assert top.argmax() == np.argmax(BLOCK_RGB[colour])
        assert np.hypot(columns.mean() + 0.5 - u, rows.mean() + 0.5 - v) < 1.0


def test_projection_of_points_is_not_tied_to_what_is_in_view(sim):
    beside, behind = sim.project([(0.5, 2.0, 0.0), (3.0, 0.0, 0.7)])
    assert beside[0] > 1.0
    assert np.isnan(behind).all()


def test_the_robots_left_is_the_images_right_as_the_camera_looks_back_at_it(sim):
    left, right = sim.project([(0.5, 0.1, 0.0), (0.5, -0.1, 0.0)])
    assert left[0] > 0.5 > right[0]


def test_the_hands_shadow_lies_below_the_tool(sim):
    sim.reset(0, parse_task('pick red'))
    sim.set_pose_target((0.5, 0.0, 0.16), (0, 1, 0, 0))
    sim.step(1.5)
    tool, _ = sim.tool_pose()
    u, v = (sim.project([(tool[0], tool[1], 0.0)]) * (640, 480))[0]
    shadow, table = sim.render()[[int(v), 470], [int(u), 320]].astype(int)
    assert shadow.sum() < 0.7 * table.sum()


def test_an_unknown_camera_is_refused_with_a_list_of_the_known_ones(sim):
    with pytest.raises(ValueError, match="camera 'wrist' is unknown; expected one of: front"):
        sim.render('wrist')
    with pytest.raises(ValueError, match="camera 'wrist' is unknown"):
        sim.project([(0, 0, 0)], 'wrist')


@pytest.mark.parametrize('size', [(128, 128), (960, 1280), (0, 0)])
def test_a_size_with_another_view_or_larger_than_the_buffer_is_refused(sim, size):
    with pytest.raises(ValueError, match='shape of 480x640 and be no larger'):
        sim.render(size=size)


def test_a_simulator_made_without_camera_says_so():
    with pytest.raises(SimulationError, match='has no camera'):
        TabletopSim(image_size=None).render()


@pytest.mark.parametrize('garbage', [
    np.zeros((480, 640, 3), np.uint8),
    np.full((480, 640, 3), 255, np.uint8),
    np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8),
])
def test_a_garbage_frame_fails_the_start_up_check(sim, garbage):
    assert 'expected the red colour' in layout.frame_problem(garbage, sim.project)


def test_a_simulator_whose_frames_are_garbage_is_not_made(monkeypatch):
    monkeypatch.setattr(
        TabletopSim, 'render', lambda self: np.zeros((480, 640, 3), np.uint8))
    with pytest.raises(SimulationError, match='test frame is garbage .*red'):
        TabletopSim()


@pytest.mark.parametrize('backend', ['', 'egl', 'osmesa'])
def test_without_opengl_physics_works_and_one_line_names_the_packages(backend):
    ran = subprocess.run(
        [sys.executable, '-c', _WITHOUT_LIBRARIES], capture_output=True, text=True, timeout=60,
        env={**os.environ, 'MUJOCO_GL': backend}, check=True)
    lines = ran.stdout.splitlines()
    assert len(lines) == 1
    assert 'apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri' in lines[0]
    assert 'libosmesa6' in lines[0]


def test_the_simulator_loads_neither_ros_nor_torch():
    code = 'import sys, vla_policy_node.simulation; print({"torch", "rclpy"} & set(sys.modules))'
    ran = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == 'set()'
