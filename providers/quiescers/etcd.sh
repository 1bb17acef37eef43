# etcd: no write can be stopped; every one that was acknowledged is in the member's log, on disk.
login() {
  command -v etcdctl >/dev/null || { why="etcdctl, its client, is not in this container"; return 1; }
  export ETCDCTL_API=3 ETCDCTL_ENDPOINTS="${endpoint:-${ETCDCTL_ENDPOINTS:-127.0.0.1:2379}}"
  [ -z "${ETCD_ROOT_PASSWORD:-}" ] || export ETCDCTL_USER="root:$ETCD_ROOT_PASSWORD"
}
told() { timeout 5 etcdctl --dial-timeout=3s --command-timeout=4s "$@" 2>&1 </dev/null; }
facts() {
  facts=
  status=$(told endpoint status --write-out=json) || { why=$status; return 1; }
  member=${status#*\"member_id\":}
  facts="member=${member%%[!0-9]*}"
}
arm() { login && facts; }
freeze() { said=$(told endpoint health) || { why="it is not healthy: $(printf %s "$said" | tr '\n' ' ')"; return 1; }; }
beat() { :; }
release() { :; }
undo() { :; }
