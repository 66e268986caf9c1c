"""
The simulated tabletop as one MuJoCo model: arm, gripper, table, blocks, camera and light.

Everything is a primitive shape, so the model needs no mesh files. The frame `base` is the
world: origin at the arm's foot on the table top, x forward, y left, z up; metres and radians.
"""

COLOURS = ('red', 'green', 'blue', 'yellow')
BLOCK_RGB = {
    'red': (0.90, 0.06, 0.06),
    'green': (0.05, 0.68, 0.12),
    'blue': (0.08, 0.18, 0.95),
    'yellow': (0.98, 0.85, 0.05),
}
TABLE_RGB = (0.80, 0.79, 0.76)
# The lamp hangs straight above, so the hand's shadow is its outline on the table. It is drawn as
# a flat patch: real shadow maps make a frame take more than twice as long.
SHADOW_RGB = (0.42, 0.42, 0.44)
FINGER_RGB = (1.0, 0.10, 0.85)

BLOCK_SIZE_M = 0.04
FINGER_TRAVEL_M = 0.045         # of each finger; twice this is the opening
FINGER_TIP_BELOW_TOOL_M = 0.008  # the fingers end this far below the tool point

ARM_JOINTS = tuple(f'joint{number}' for number in range(1, 8))
FINGER_JOINTS = ('finger_left', 'finger_right')
PHYSICS_STEP_S = 0.002

CAMERA_POSITION = (1.08, 0.0, 0.68)
CAMERA_TARGET = (0.49, 0.0, 0.048)
CAMERA_FOVY_DEG = 23.5

# Position servos: torque = KP * (target - q) - KV * velocity; the delay KV / KP is made up for
# by the follower, which commands that much ahead.
ARM_KP = 3000.0
ARM_KV = 120.0


def _rgba(colour: tuple[float, ...]) -> str:
    return ' '.join(f'{value:g}' for value in (*colour, 1.0))


def _block(colour: str) -> str:
    half = BLOCK_SIZE_M / 2
    return f"""
    <body name="{colour}" pos="0 0 -5">
      <freejoint name="{colour}"/>
      <geom name="{colour}" class="block" type="box" size="{half} {half} {half}"
            rgba="{_rgba(BLOCK_RGB[colour])}"/>
    </body>"""


def _finger(name: str, side: int) -> str:
    """A finger 1 cm thick and 7 cm long that slides along the hand's y axis."""
    return f"""
          <body name="{name}" pos="0 0 0.022" gravcomp="1">
            <joint name="{name}" class="finger" axis="0 {side} 0"/>
            <geom class="visual" type="box" size="0.009 0.005 0.014" pos="0 {0.005 * side} 0.014"
                  rgba="0.25 0.25 0.28 1" mass="0.03"/>
            <geom name="{name}" class="pad" type="box" size="0.010 0.005 0.021"
                  pos="0 {0.005 * side} 0.049" rgba="{_rgba(FINGER_RGB)}" mass="0.03"/>
          </body>"""


def _look_at() -> str:
    """Return the camera's x and y axes for MJCF, looking at CAMERA_TARGET with z up."""
    px, py, pz = CAMERA_POSITION
    tx, ty, tz = CAMERA_TARGET
    back = (px - tx, py - ty, pz - tz)
    right = (-back[1], back[0], 0.0)
    up = (
        back[1] * right[2] - back[2] * right[1],
        back[2] * right[0] - back[0] * right[2],
        back[0] * right[1] - back[1] * right[0],
    )
    return ' '.join(f'{value:.9g}' for value in (*right, *up))


_ARM = """
    <body name="link0" gravcomp="1">
      <geom class="link" type="cylinder" size="0.075 0.05" pos="0 0 0.05"/>
      <geom class="link" type="capsule" size="0.055" fromto="0 0 0.08 0 0 0.25"/>
      <body name="link1" pos="0 0 0.333" gravcomp="1">
        <joint name="joint1" range="-2.8973 2.8973"/>
        <geom class="joint" type="cylinder" size="0.06 0.075" zaxis="0 1 0"/>
        <body name="link2" quat="1 -1 0 0" gravcomp="1">
          <joint name="joint2" range="-1.7628 1.7628"/>
          <geom class="link" type="capsule" size="0.05" fromto="0 -0.05 0 0 -0.25 0"/>
          <body name="link3" pos="0 -0.316 0" quat="1 1 0 0" gravcomp="1">
            <joint name="joint3" range="-2.8973 2.8973"/>
            <geom class="link" type="capsule" size="0.045" fromto="0 0 0 0.0825 0 0"/>
            <body name="link4" pos="0.0825 0 0" quat="1 1 0 0" gravcomp="1">
              <joint name="joint4" range="-3.0718 -0.0698"/>
              <geom class="joint" type="cylinder" size="0.052 0.062"/>
              <geom class="link" type="capsule" size="0.042"
                    fromto="-0.0825 0.08 0 -0.0825 0.30 0"/>
              <body name="link5" pos="-0.0825 0.384 0" quat="1 -1 0 0" gravcomp="1">
                <joint name="joint5" range="-2.8973 2.8973"/>
                <geom class="link" type="capsule" size="0.040" fromto="0 0 -0.08 0 0 0"/>
                <body name="link6" quat="1 1 0 0" gravcomp="1">
                  <joint name="joint6" range="-0.0175 3.7525"/>
                  <geom class="joint" type="cylinder" size="0.042 0.05"/>
                  <geom class="link" type="capsule" size="0.034" fromto="0.02 0 0 0.088 0 0"/>
                  <body name="link7" pos="0.088 0 0" quat="1 1 0 0" gravcomp="1">
                    <joint name="joint7" range="-2.8973 2.8973"/>
                    <geom class="link" type="capsule" size="0.030" fromto="0 0 0.02 0 0 0.075"/>
                    <geom class="joint" type="cylinder" size="0.024 0.01" pos="0 0 0.102"/>
                    {hand}
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>"""


def _hand() -> str:
    tool_height = 0.022 + 0.07 - FINGER_TIP_BELOW_TOOL_M
    return f"""
        <body name="hand" pos="0 0 0.112" quat="0.9238795 0 0 -0.3826834" gravcomp="1">
          <geom name="hand" class="pad" type="box" size="0.013 0.058 0.011" pos="0 0 0.011"
                rgba="0.20 0.20 0.23 1" mass="0.3"/>
          <site name="tool" pos="0 0 {tool_height}" size="0.001" rgba="0 0 0 0"/>
          {_finger('finger_left', -1)}
          {_finger('finger_right', 1)}
        </body>"""


def _actuators() -> str:
    arm = ''.join(
        f'<position name="{name}" joint="{name}" kp="{ARM_KP}" kv="{ARM_KV}"'
        f' forcerange="-87 87" ctrlrange="-4 4"/>'
        for name in ARM_JOINTS
    )
    return f"""{arm}
    <position name="gripper" tendon="fingers" kp="1500" kv="60" forcerange="-25 25"
              ctrlrange="0 {FINGER_TRAVEL_M}"/>"""


def _visual(image_size: tuple[int, int]) -> str:
    height, width = image_size
    return f"""  <visual>
    <global offwidth="{width}" offheight="{height}" fovy="{CAMERA_FOVY_DEG}"/>
    <quality shadowsize="0" offsamples="0"/>
    <map znear="0.05" zfar="10"/>
    <headlight ambient="0.5 0.5 0.5" diffuse="0.35 0.35 0.35" specular="0 0 0"/>
  </visual>"""


def _defaults() -> str:
    return f"""  <default>
    <joint damping="1" armature="0.1"/>
    <geom contype="0" conaffinity="0"/>
    <default class="visual"><geom group="1"/></default>
    <default class="shadow"><geom group="1" rgba="{_rgba(SHADOW_RGB)}"/></default>
    <default class="link"><geom group="1" rgba="0.95 0.95 0.96 1" density="600"/></default>
    <default class="joint"><geom group="1" rgba="0.32 0.34 0.38 1" density="600"/></default>
    <default class="finger">
      <joint type="slide" range="0 {FINGER_TRAVEL_M}" damping="5" armature="0.1"/>
    </default>
    <default class="pad">
      <geom contype="2" conaffinity="1" friction="1.5 0.02 0.001" condim="4"
            solref="0.006 1" solimp="0.95 0.99 0.001"/>
    </default>
    <default class="block">
      <geom contype="1" conaffinity="3" friction="0.8 0.01 0.001" condim="4" mass="0.05"
            solref="0.006 1" solimp="0.95 0.99 0.001"/>
    </default>
  </default>"""


def _world() -> str:
    camera = ' '.join(f'{value:g}' for value in CAMERA_POSITION)
    blocks = ''.join(_block(colour) for colour in COLOURS)
    return f"""  <worldbody>
    <light name="lamp" directional="true" pos="0.5 0 2" dir="0 0 -1" castshadow="false"
           ambient="0 0 0" diffuse="0.22 0.22 0.22" specular="0 0 0"/>
    <camera name="front" pos="{camera}" xyaxes="{_look_at()}" fovy="{CAMERA_FOVY_DEG}"/>
    <geom name="table" type="box" size="0.75 0.9 0.03" pos="0.4 0 -0.03"
          rgba="{_rgba(TABLE_RGB)}" contype="1" conaffinity="3" friction="0.6 0.01 0.001"
          condim="4"/>
    <body name="shadow" mocap="true" pos="0.5 0 0">
      <geom class="shadow" type="box" size="0.013 0.058 0.0004"/>
      <geom class="shadow" type="cylinder" size="0.030 0.0004"/>
    </body>
    {_ARM.format(hand=_hand())}
    {blocks}
  </worldbody>"""


# The fingers move as one.
_COUPLING = """  <tendon>
    <fixed name="fingers">
      <joint joint="finger_left" coef="0.5"/>
      <joint joint="finger_right" coef="0.5"/>
    </fixed>
  </tendon>
  <equality>
    <joint joint1="finger_left" joint2="finger_right" solref="0.005 1" solimp="0.95 0.99 0.001"/>
  </equality>"""


def build_mjcf(image_size: tuple[int, int]) -> str:
    """
    Return the scene as MJCF text.

    `image_size` is (height, width) in pixels of the largest image that will be rendered.
    """
    return f"""
<mujoco model="tabletop">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{PHYSICS_STEP_S}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <statistic center="0.5 0 0.1" extent="1"/>
{_visual(image_size)}
{_defaults()}
{_world()}
{_COUPLING}
  <actuator>
    {_actuators()}
  </actuator>
</mujoco>
"""
