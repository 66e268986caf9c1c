"""
What a robot recorded, as episodes in canonical units: read_bags.

Knows bags, numpy and OpenCV; knows no ROS, no torch and nothing of what it is used for.
"""

from vla_policy_node.recorded.bags import read_bags
from vla_policy_node.recorded.bags import RecordedBags
from vla_policy_node.recorded.bags import RecordedEpisode
from vla_policy_node.recorded.bags import RecordedFrame
from vla_policy_node.recorded.config import RecordedConfig

__all__ = ['RecordedBags', 'RecordedConfig', 'RecordedEpisode', 'RecordedFrame', 'read_bags']
