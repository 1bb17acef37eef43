# fsfreeze: one process freezes, any other thaws, and the freeze outlives both; the watchdog is what lets go.
export LC_ALL=C
arm() {
  case $dir/ in "$mount"/*) why="$dir, where the watchdog works, lies on the file system to be frozen"; return 1 ;; esac
  sync -f "$mount" 2>/dev/null || :
}
facts() { facts=; }
freeze() { said=$(timeout "$lock_seconds" fsfreeze -f "$mount" 2>&1) || { why=${said:-fsfreeze took longer than $lock_seconds s}; return 1; }; }
# what is still frozen cannot be frozen again
beat() {
  if said=$(fsfreeze -f "$mount" 2>&1); then
    why="somebody thawed $mount meanwhile"
    return 1
  fi
  case $said in *busy*) return 0 ;; esac
  why=$said
  return 1
}
release() { beat && said=$(fsfreeze -u "$mount" 2>&1) || { why=${why:-$said}; return 1; }; }
undo() { said=$(fsfreeze -u "$mount" 2>&1) || case $said in *'Invalid argument'*) ;; *) echo "$said" >&2; return 1 ;; esac; }
