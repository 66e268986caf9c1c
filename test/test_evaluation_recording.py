"""The bag of an episode can be read back with nothing but what is inside it."""

import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import get_types_from_msg
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores

from vla_policy_node.evaluation import filmstrip
from vla_policy_node.evaluation import recording
from vla_policy_node.message_types import typestore

CAMERA = '/camera/image_raw'
CHUNKS = '/policy_node/action_chunk'
TOPICS = {CAMERA: 'sensor_msgs/msg/Image', CHUNKS: 'vla_msgs/msg/EndEffectorDeltaChunk',
          '/controller_node/status': 'vla_msgs/msg/ControllerStatus'}


@pytest.fixture(scope='module')
def store():
    return typestore()


def _header(store, nanoseconds, frame):
    types = store.types
    stamp = types['builtin_interfaces/msg/Time'](sec=5, nanosec=nanoseconds)
    return types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame)


def _image(store, nanoseconds):
    data = np.full(4 * 6 * 3, nanoseconds, np.uint8)
    message = store.types[TOPICS[CAMERA]](
        header=_header(store, nanoseconds, 'camera'), height=4, width=6, encoding='rgb8',
        is_bigendian=0, step=18, data=data)
    return bytes(store.serialize_cdr(message, TOPICS[CAMERA]))


def _chunk(store, sequence, plan='at 0.47 0.81'):
    types = store.types
    vector = types['geometry_msgs/msg/Vector3']
    delta = types['vla_msgs/msg/EndEffectorDelta'](
        translation=vector(x=0.01, y=0.0, z=-0.02), rotation=vector(x=0.0, y=0.0, z=0.0),
        gripper=1.0, terminate=False, confidence=np.full(7, 0.5, np.float32))
    message = types[TOPICS[CHUNKS]](
        header=_header(store, 0, 'base'), observation_stamp=_header(store, 0, '').stamp,
        sequence=sequence, period=types['builtin_interfaces/msg/Duration'](sec=0, nanosec=2),
        deltas=[delta], token_ids=np.array([7, 8], np.int64), plan=plan)
    return bytes(store.serialize_cdr(message, TOPICS[CHUNKS]))


@pytest.fixture(scope='module')
def bag(store, tmp_path_factory):
    path = tmp_path_factory.mktemp('out') / 'episode_bag'
    messages = [
        recording.Recorded(topic=CHUNKS, received_ns=30, data=_chunk(store, 1)),
        recording.Recorded(topic=CAMERA, received_ns=10, data=_image(store, 10)),
        recording.Recorded(topic=CAMERA, received_ns=20, data=_image(store, 20)),
    ]
    assert recording.write_bag(path, TOPICS, messages) == 3
    return path


def test_every_topic_is_in_the_bag_even_without_a_message(bag):
    with Reader(bag) as reader:
        assert {c.topic: (c.msgtype, c.msgcount) for c in reader.connections} == {
            CAMERA: (TOPICS[CAMERA], 2), CHUNKS: (TOPICS[CHUNKS], 1),
            '/controller_node/status': ('vla_msgs/msg/ControllerStatus', 0)}


def test_messages_come_back_in_order_of_time_with_the_types_of_the_bag(bag):
    with Reader(bag) as reader:
        own = get_typestore(Stores.EMPTY)
        for connection in reader.connections:
            own.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
        read = [(when, own.deserialize_cdr(data, connection.msgtype))
                for connection, when, data in reader.messages()]
    assert [when for when, _ in read] == [10, 20, 30]
    assert read[1][1].data.tolist() == [20] * 72
    chunk = read[2][1]
    assert chunk.plan == 'at 0.47 0.81'
    assert chunk.deltas[0].translation.z == -0.02
    assert chunk.deltas[0].confidence.tolist() == [0.5] * 7


def test_a_new_bag_replaces_the_old_one(store, bag, tmp_path):
    path = tmp_path / 'episode_bag'
    message = recording.Recorded(topic=CAMERA, received_ns=1, data=_image(store, 1))
    recording.write_bag(path, TOPICS, [message, message])
    recording.write_bag(path, TOPICS, [message])
    with Reader(path) as reader:
        assert reader.message_count == 1


def _last_frame(store, directory, plan):
    """Return the (360, 480, 3) last frame of a black film strip, whose plan comes late."""
    image = store.types[TOPICS[CAMERA]](
        header=_header(store, 0, 'camera'), height=120, width=160, encoding='rgb8',
        is_bigendian=0, step=480, data=np.zeros(120 * 160 * 3, np.uint8))
    data = bytes(store.serialize_cdr(image, TOPICS[CAMERA]))
    messages = [recording.Recorded(topic=CAMERA, received_ns=10 * n, data=data) for n in range(9)]
    messages.append(
        recording.Recorded(topic=CHUNKS, received_ns=45, data=_chunk(store, 1, plan)))
    recording.write_bag(directory / 'bag', TOPICS, messages)
    strip = filmstrip.draw(directory / 'bag')
    assert strip.shape == (730, 1460, 3)
    assert strip[:360, :480].max() == 0
    return strip[370:, 980:]


def test_a_film_strip_has_a_cross_hair_and_a_label_where_the_target_is(store, tmp_path):
    frame = _last_frame(store, tmp_path, 'red block at 0.47 0.81')
    assert frame[292 - 15, 226].tolist() == [255, 255, 255]
    assert frame[292, 226 - 24].tolist() == [255, 255, 255]
    assert frame[250:268, 256:340].max() > 200
    assert frame[:230].max() == 0


@pytest.mark.parametrize(('plan', 'rows', 'columns'), [
    ('red block at 0.97 0.01', slice(8, 30), slice(340, 440)),
    ('pick up the r\u00e9d block', slice(335, 355), slice(8, 200)),
    ('word ' * 30, slice(335, 355), slice(8, 480)),
])
def test_what_is_written_stays_in_the_picture(store, tmp_path, plan, rows, columns):
    frame = _last_frame(store, tmp_path, plan)
    assert frame[rows, columns].max() > 200
    assert frame[-2:].max() <= 20 and frame[:, :2].max() <= 20


def test_a_bag_without_frames_has_no_film_strip(store, tmp_path):
    recording.write_bag(tmp_path / 'bag', TOPICS, [])
    with pytest.raises(ValueError, match=r'expected at least 6 frames .* found 0'):
        filmstrip.draw(tmp_path / 'bag')
