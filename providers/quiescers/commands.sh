# Plain commands of the document: what they hold outlives them, so the watchdog is what lets go when refloat is gone.
# ran COMMAND: its last words in $why when it fails; not through a pipe, which a process it leaves behind would keep open
ran() {
  timeout "${2:-6}" sh -c "$1" </dev/null >"$dir/said" 2>&1
  code=$?
  [ "$code" != 0 ] || return 0
  why="ended with $code: $(tail -c 300 "$dir/said" | tr '\n' ' ')"
  return 1
}
arm() { :; }
facts() { facts=; }
freeze() { ran "$freeze_command"; }
beat() { [ -z "$beat_command" ] || ran "$beat_command" 2; }
release() { beat && ran "$thaw_command"; }
undo() { timeout 10 sh -c "$thaw_command" </dev/null; }
