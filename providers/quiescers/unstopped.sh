# Engines whose writes cannot be stopped: nothing is held, so nothing has to be let go.
arm() { :; }
facts() { facts=; }
freeze() { sync -f "${folder:-/}" 2>/dev/null || sync || { why="no sync in this container"; return 1; }; }
beat() { :; }
release() { :; }
undo() { :; }
