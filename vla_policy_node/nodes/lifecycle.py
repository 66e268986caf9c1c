"""What rclpy's lifecycle nodes lack."""

from lifecycle_msgs.srv import ChangeState
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode


def refuse_misfit_transitions(node: LifecycleNode) -> None:
    """
    Answer a transition that does not fit the node's state with success false.

    rclpy raises out of the service's callback otherwise, which ends the process: any client could
    take a running robot's node down by configuring it once more.
    """
    service = node._service_change_state
    change = service.callback

    def change_or_refuse(
        request: ChangeState.Request, response: ChangeState.Response,
    ) -> ChangeState.Response:
        try:
            return change(request, response)
        except rclpy_implementation.RCLError:
            wanted = request.transition.label or f'number {request.transition.id}'
            _, state = node._state_machine.current_state
            node.get_logger().warning(
                f'transition {wanted} refused: it does not fit the state {state}')
            response.success = False
            return response

    service.callback = change_or_refuse
