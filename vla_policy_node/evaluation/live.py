"""Closed-loop episodes through the running nodes, and everything measured on the way."""

from collections.abc import Callable
import threading
import time
from typing import Any

import cv2

from vla_policy_node import images
from vla_policy_node.bringup import CAMERA_TOPIC
from vla_policy_node.evaluation import client as ros
from vla_policy_node.evaluation.episodes import EpisodePlan
from vla_policy_node.evaluation.episodes import EpisodeResult
from vla_policy_node.evaluation.episodes import Still
from vla_policy_node.evaluation.recording import Recorded
from vla_policy_node.evaluation.telemetry import Telemetry

# How often the judge is asked, and how often a still is taken.
_JUDGE_PERIOD_S = 0.2
_STILL_PERIOD_S = 0.5
_STILL_WIDTH = 320
# The controller ramps to zero and goes silent within this time.
_SETTLE_S = 0.7
# What the policy node may take to say how an instruction ended.
_RESULT_MARGIN_S = 5.0


class Listener:
    """Receives every message of the run; safe to read from another thread."""

    def __init__(self) -> None:
        """Start empty, not recording."""
        self.telemetry = Telemetry()
        self.plan = ''
        self.tool_path: list[tuple[float, float, float, float]] = []
        self._camera: Recorded | None = None
        self._recording: list[Recorded] | None = None
        self._started_s = 0.0
        self._lock = threading.Lock()
        self._handlers: dict[str, Callable[[Any], None]] = {
            ros.CHUNK_TOPIC: self._on_chunk,
            ros.POLICY_STATUS_TOPIC: self._on_policy_status,
            ros.CONTROLLER_STATUS_TOPIC: self.telemetry.on_controller_status,
            ros.TOOL_POSE_TOPIC: self._on_tool_pose,
            ros.DIAGNOSTICS_TOPIC: self._on_diagnostics,
        }

    def on_message(self, recorded: Recorded) -> None:
        """Take one serialised message."""
        with self._lock:
            if self._recording is not None:
                self._recording.append(recorded)
            if recorded.topic == CAMERA_TOPIC:
                # Decoded only when a still is taken.
                self._camera = recorded
            elif recorded.topic in self._handlers:
                self._handlers[recorded.topic](ros.decode(recorded))

    def episode_started(self, record: bool) -> None:
        """Forget the previous episode and keep every message from now on if `record`."""
        with self._lock:
            self.plan = ''
            self.tool_path = []
            # What was seen before the reset shows another scene.
            self._camera = None
            self._started_s = time.monotonic()
            self._recording = [] if record else None

    def episode_ended(self) -> list[Recorded]:
        """Return the messages of the episode; empty where it was not recorded."""
        with self._lock:
            self.telemetry.episode_ended()
            recording, self._recording = self._recording, None
            return recording or []

    def still(self) -> Still | None:
        """Return the newest camera frame as a small JPEG; None before the episode's first."""
        with self._lock:
            recorded, plan = self._camera, self.plan
        if recorded is None:
            return None
        rgb = images.to_rgb(ros.decode(recorded))
        height = round(rgb.shape[0] * _STILL_WIDTH / rgb.shape[1])
        small = cv2.resize(rgb, (_STILL_WIDTH, height), interpolation=cv2.INTER_AREA)
        _, jpeg = cv2.imencode(
            '.jpg', cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
        return Still(
            time_s=time.monotonic() - self._started_s, jpeg=jpeg.tobytes(), plan=plan)

    def _on_chunk(self, chunk: Any) -> None:
        self.telemetry.on_chunk(time.monotonic())
        self.plan = chunk.plan

    def _on_policy_status(self, message: Any) -> None:
        self.telemetry.on_policy_status(message, time.monotonic())

    def _on_tool_pose(self, message: Any) -> None:
        position = message.pose.position
        self.tool_path.append(
            (time.monotonic() - self._started_s, position.x, position.y, position.z))

    def _on_diagnostics(self, message: Any) -> None:
        self.telemetry.on_diagnostics(
            ((status.name, {item.key: item.value for item in status.values})
             for status in message.status), time.monotonic())


def run_episode(
    client: ros.DemoClient, listener: Listener, plan: EpisodePlan, max_duration_s: float,
    record: bool,
) -> tuple[EpisodeResult, list[Recorded]]:
    """
    Reset the scene, send its instruction, and watch until done or out of time.

    Returns the result and the recorded messages (empty unless `record`).
    """
    instruction = client.reset(plan.seed, plan.task)
    # The reset opens the gripper behind the controller's back; enabling makes it forget what it
    # last told the gripper, or it would see no need to close it again.
    client.enable(_RESULT_MARGIN_S)
    listener.episode_started(record)
    started = time.monotonic()
    handle = client.send_instruction(instruction, max_duration_s, _RESULT_MARGIN_S)
    result = client.ask_result(handle)
    stills = _watch(client, listener, result, started + max_duration_s)
    verdict = client.judge()
    elapsed_s = time.monotonic() - started
    if not result.done():
        client.cancel(handle)
    end = client.result(result, _RESULT_MARGIN_S)
    last = listener.still()
    recording = listener.episode_ended()
    outcome = EpisodeResult(
        plan=plan, instruction=instruction, succeeded=verdict.succeeded, reason=verdict.reason,
        nearest_block=verdict.nearest_block, elapsed_s=elapsed_s, chunks=end.steps,
        ending='success' if verdict.succeeded else end.ending,
        tool_path=tuple(listener.tool_path), stills=tuple(stills + [last] if last else stills))
    time.sleep(_SETTLE_S)
    return outcome, recording


def _watch(
    client: ros.DemoClient, listener: Listener, result: Any, deadline_s: float,
) -> list[Still]:
    """Return stills taken until the judge is content, the goal ends or time is up."""
    stills: list[Still] = []
    next_still_s = time.monotonic()
    while time.monotonic() < deadline_s and not result.done():
        if time.monotonic() >= next_still_s:
            still = listener.still()
            if still is not None:
                stills.append(still)
                next_still_s += _STILL_PERIOD_S
        if client.judge().succeeded:
            break
        time.sleep(_JUDGE_PERIOD_S)
    return stills
