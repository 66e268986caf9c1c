"""What the demo's listener keeps of an episode, and how its client gives up."""

import array

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('vla_msgs')

from geometry_msgs.msg import PoseStamped  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from rclpy.task import Future  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from vla_msgs.msg import EndEffectorDeltaChunk  # noqa: E402

from vla_policy_node.bringup import CAMERA_TOPIC  # noqa: E402
from vla_policy_node.evaluation import client  # noqa: E402
from vla_policy_node.evaluation.live import Listener  # noqa: E402
from vla_policy_node.evaluation.recording import Recorded  # noqa: E402
from vla_policy_node.evaluation.supervisor import ProcessDiedError  # noqa: E402


def _recorded(topic, message, received_ns=1):
    return Recorded(topic=topic, received_ns=received_ns, data=serialize_message(message))


def _image(rgb):
    height, width, _ = rgb.shape
    message = Image(height=height, width=width, encoding='rgb8', step=3 * width)
    message.data = array.array('B', rgb.tobytes())
    return message


@pytest.fixture
def listener():
    return Listener()


def test_a_still_is_the_newest_frame_with_the_newest_plan(listener):
    listener.episode_started(record=False)
    listener.on_message(_recorded(client.CHUNK_TOPIC, EndEffectorDeltaChunk(plan='at 0.25 0.75')))
    red = np.full((480, 640, 3), (200, 0, 0), np.uint8)
    listener.on_message(_recorded(CAMERA_TOPIC, _image(red)))
    still = listener.still()
    picture = cv2.imdecode(np.frombuffer(still.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert still.plan == 'at 0.25 0.75'
    assert picture.shape == (240, 320, 3)
    assert picture[120, 160].tolist() == pytest.approx([0, 0, 200], abs=4)


def test_a_frame_of_the_previous_episode_is_not_shown(listener):
    listener.on_message(_recorded(CAMERA_TOPIC, _image(np.zeros((480, 640, 3), np.uint8))))
    listener.episode_started(record=False)
    assert listener.still() is None


def test_only_a_recorded_episode_is_kept_as_it_came(listener):
    pose = _recorded(client.TOOL_POSE_TOPIC, PoseStamped())
    listener.on_message(pose)
    listener.episode_started(record=True)
    listener.on_message(pose)
    assert listener.episode_ended() == [pose]
    listener.episode_started(record=False)
    listener.on_message(pose)
    assert listener.episode_ended() == []


def test_the_tool_path_has_the_positions_of_the_episode(listener):
    listener.episode_started(record=False)
    pose = PoseStamped()
    pose.pose.position.x, pose.pose.position.z = 0.5, 0.2
    listener.on_message(_recorded(client.TOOL_POSE_TOPIC, pose))
    assert [sample[1:] for sample in listener.tool_path] == [(0.5, 0.0, 0.2)]


def test_every_recorded_topic_has_a_type_that_a_bag_can_name():
    names = {client.message_type_name(kind) for kind in client.TOPICS.values()}
    assert {'sensor_msgs/msg/Image', 'vla_msgs/msg/EndEffectorDeltaChunk',
            'geometry_msgs/msg/TwistStamped'} <= names


@pytest.fixture
def lonely():
    """Return a function that makes a client in a graph without other nodes."""
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    made = []

    def make(check):
        node = client.DemoClient(lambda _: None, check, context=context)
        made.append(node)
        return node
    yield make
    for node in made:
        node.destroy_node()
    context.try_shutdown()


def test_a_service_that_nobody_offers_is_named(lonely):
    with pytest.raises(client.DemoError, match=r'service /simulated_robot/reset within 0 s'):
        lonely(lambda: None).reset(1, 'pick red', timeout_s=0.2)


def test_waiting_ends_when_a_process_dies(lonely):
    def check():
        raise ProcessDiedError('policy_node ended with exit code 1')
    with pytest.raises(ProcessDiedError, match='policy_node ended'):
        lonely(check).configure(timeout_s=60.0)


def test_a_dead_process_is_noticed_while_the_others_answer_at_once(lonely):
    answered = Future()
    answered.set_result(None)

    def check():
        raise ProcessDiedError('controller_node was ended by signal 9')
    with pytest.raises(ProcessDiedError, match='controller_node'):
        lonely(check).result(answered)
