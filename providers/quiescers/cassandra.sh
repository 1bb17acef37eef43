# Cassandra: memory to disk, and hard links under a name in the cut; its writes go on.
jmx() { timeout "$1" nodetool ${port:+-p "$port"} ${user:+-u "$user"} ${passwordFile:+-pwf "$passwordFile"} $2 >/dev/null 2>&1 </dev/null; }
# what an earlier hold could not clear goes first
arm() { undo || :; jmx 18 flush || { why="nodetool flush failed"; return 1; }; }
facts() { facts=; }
freeze() {
  jmx 7 "snapshot -t refloat-hold" || { why="nodetool snapshot failed"; return 1; }
  sync
}
beat() { :; }
release() { undo; }
undo() { jmx 10 "clearsnapshot -t refloat-hold"; }
