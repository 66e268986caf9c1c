# Source this in bash, from anywhere, after ROS 2 if there is one: virtual environment, built
# packages and the DDS profile that keeps camera frames from being lost.
#   . tools/env.sh && policy_node --ros-args --params-file config/policy_node.yaml

_vla_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$_vla_root/.venv/bin/activate"

if [ -z "${ROS_DISTRO:-}" ]; then
  # The ROS wheels keep their ament index and CMake files in the virtual environment.
  case ":${AMENT_PREFIX_PATH:-}:" in
    *":$_vla_root/.venv:"*) ;;
    *) export AMENT_PREFIX_PATH="$_vla_root/.venv${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
       export CMAKE_PREFIX_PATH="$_vla_root/.venv${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}" ;;
  esac
fi
if [ -f "$_vla_root/install/local_setup.bash" ]; then
  . "$_vla_root/install/local_setup.bash"
  export PATH="$_vla_root/install/vla_policy_node/lib/vla_policy_node:$PATH"
fi

# Fast DDS reads the second name up to Jazzy, the first from Kilted on; a profile of your own stays.
export FASTDDS_DEFAULT_PROFILES_FILE="${FASTDDS_DEFAULT_PROFILES_FILE:-$_vla_root/config/fastdds_profile.xml}"
export FASTRTPS_DEFAULT_PROFILES_FILE="${FASTRTPS_DEFAULT_PROFILES_FILE:-$FASTDDS_DEFAULT_PROFILES_FILE}"
export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
unset _vla_root
