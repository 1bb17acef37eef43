# The pod's control group is frozen by the node agent: none of its processes runs, whatever they are. $uid is the pod's.
# https://docs.kernel.org/admin-guide/cgroup-v2.html (cgroup.freeze, cgroup.events) and cgroup-v1/freezer-subsystem.html.
# What is frozen is written down first, with its deadline, where the agent looks that outlives all of this.
states=${STATES:-/run/refloat-agent}
find_group() {
  group=
  for each in $(find "${CGROUPS:-/sys/fs/cgroup}" -maxdepth 9 -type d \
    \( -name "pod$uid" -o -name "*-pod$(printf %s "$uid" | tr - _).slice" \) 2>/dev/null); do
    [ ! -e "$each/cgroup.freeze" ] && [ ! -e "$each/freezer.state" ] || group=$each
  done
  [ -n "$group" ] || { why="this node has no control group of pod $uid that can be frozen"; return 1; }
}
is_frozen() {
  if [ -e "$group/cgroup.freeze" ]; then grep -qx 'frozen 1' "$group/cgroup.events"
  else [ "$(cat "$group/freezer.state")" = FROZEN ]; fi
}
put() {
  if [ -e "$group/cgroup.freeze" ]; then echo "$1" >"$group/cgroup.freeze"
  elif [ "$1" = 1 ]; then echo FROZEN >"$group/freezer.state"
  else echo THAWED >"$group/freezer.state"; fi
}
# becomes 1|0: whether it is frozen, or thawed, within four seconds
becomes() {
  turn=0
  until [ "$(is_frozen && echo 1 || echo 0)" = "$1" ]; do
    [ "$turn" -lt 40 ] || return 1
    sleep 0.1
    turn=$((turn + 1))
  done
}
arm() { find_group && sync; }
facts() { facts=; }
freeze() {
  read -r up _ </proc/uptime
  echo "$((${up%.*} + hard)) $group" >"$states/$uid" || { why="nothing can be written to $states"; return 1; }
  put 1 || { why="$group cannot be frozen"; return 1; }
  becomes 1 || { why="a process of $group would not stand still"; return 1; }
  sync # what its clients were told is in memory only, until now
}
beat() { is_frozen || { why="somebody thawed $group"; return 1; }; }
release() { beat && undo; }
# a group that is gone holds nobody
undo() {
  find_group || { rm -f "$states/$uid"; return 0; }
  put 0 || { why="$group cannot be thawed"; return 1; }
  becomes 0 || { why="$group stays frozen"; return 1; }
  rm -f "$states/$uid"
}
