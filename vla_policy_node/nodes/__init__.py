"""rclpy nodes: parameters, topics, timers, lifecycle, diagnostics; the thinking is elsewhere."""
