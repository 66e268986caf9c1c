"""The simulated robot and its scripted expert. Knows nothing of ROS or torch."""

from vla_policy_node.simulation.rendering import SimulationError  # isort: skip (chooses OpenGL)

from vla_policy_node.simulation.episodes import EpisodeOutcome
from vla_policy_node.simulation.episodes import run_episode
from vla_policy_node.simulation.expert import expert_action
from vla_policy_node.simulation.judge import TaskJudge
from vla_policy_node.simulation.scene import COLOURS
from vla_policy_node.simulation.state import SceneState
from vla_policy_node.simulation.tabletop import ACTION_PERIOD_S
from vla_policy_node.simulation.tabletop import TabletopSim
from vla_policy_node.simulation.tasks import parse_task
from vla_policy_node.simulation.tasks import Task
from vla_policy_node.simulation.tasks import TASKS
from vla_policy_node.simulation.tasks import VERBS

__all__ = (
    'ACTION_PERIOD_S',
    'COLOURS',
    'EpisodeOutcome',
    'SceneState',
    'SimulationError',
    'TASKS',
    'TabletopSim',
    'Task',
    'TaskJudge',
    'VERBS',
    'expert_action',
    'parse_task',
    'run_episode',
)
