# RabbitMQ: its application is stopped on this node, and started again; a setting of the server, so the watchdog lets go.
ctl() { timeout "$1" rabbitmqctl -q $2 </dev/null 2>&1; }
arm() { :; }
facts() { facts=; }
freeze() {
  said=$(ctl 7 stop_app) || { why="stop_app failed: $(printf %s "$said" | tail -n 1)"; return 1; }
  sync
}
beat() {
  case $(ctl 3 "eval rabbit:is_running()." 2>&1) in *false*) return 0 ;; esac
  why="it is no longer stopped, or does not answer"
  return 1
}
release() { beat && undo; }
undo() { said=$(ctl 20 start_app) || { why="start_app failed: $(printf %s "$said" | tail -n 1)"; return 1; }; }
