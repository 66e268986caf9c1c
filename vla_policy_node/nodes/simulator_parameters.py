"""The parameters of the simulator node; config/simulator_node.yaml holds the same values."""

from vla_policy_node.nodes.parameters import Declared

PARAMETERS = (
    Declared(
        name='camera_rate_hz', default=30.0, minimum=0.5, maximum=60.0,
        description='Rate of the camera images [Hz].'),
    Declared(
        name='state_rate_hz', default=50.0, minimum=1.0, maximum=100.0,
        description='Rate of joint states and tool pose [Hz].'),
    Declared(
        name='command_timeout_s', default=0.2, minimum=0.02, maximum=5.0,
        description='The arm stops when the newest twist is older than this [s].'),
    Declared(
        name='seed', default=0, minimum=0, maximum=2**62,
        description='Seed of the first scene.'),
    Declared(
        name='task', default='',
        description="Task of the first scene, '<verb> <colour>'; empty draws one."),
)
