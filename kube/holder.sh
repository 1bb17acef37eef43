# The holder: keeps one engine still inside its own container for as long as somebody says so, and never longer.
#
# POSIX sh, no terminal. Lines on standard input: "freeze", "beat N", "between", "release". Answers on standard output:
#   refloat UPTIME ARMED FACTS | HELD N FACTS | BETWEEN WORDS | RELEASED SINCE UNTIL | FAILED WHY | BROKEN WHY
# It lets go on release, at the end of its input, after $lease seconds of silence, $hard seconds after the freeze began, and
# on SIGTERM, SIGHUP and SIGINT. Silence and the hard limit are the watchdog's, a process of its own, started before anything
# is frozen; it needs nothing of this one. Time is the node's uptime, which no wrong clock touches.
#
# The server may be process 1 of the container, which becomes the parent of whatever this text leaves behind. PostgreSQL's
# takes a child that it does not know, and that ended by a signal or with more than 1, for a server process that crashed, and
# starts all of them anew (reaper and CleanupBackend in postmaster.c). So nobody's child is left to it in such a state.
#
# Given before this text: $lease and $hard (whole seconds), $token (one word), the settings and functions of a quiescer:
#   arm     connect, and whatever may take long; holds nothing yet
#   freeze  hold; returns only when held
#   beat    look whether it is still held; renew the engine's own timer where it has one
#   between what must happen after the first cuts and before the last one; sets $said to words KEY=VALUE (optional)
#   release let go
#   facts   set $facts to words KEY=VALUE that must not change during the hold
#   undo    let go without the client, at any moment, twice as well; for the watchdog
# Each returns 0 when it succeeded, else sets $why to one line. They may use: client, tell, hear, $heard, now, $dir.

umask 077
trap '' PIPE
unfrozen=60 # seconds of silence while nothing is held: arming may flush for long
why= facts= heard= since= frozen= watch=

# $up as the kernel gives it, whole seconds in $secs, hundredths in $ticks
now() { read -r up _ </proc/uptime; secs=${up%.*} ticks=$secs${up#*.}; }
say() { now; printf 'refloat %s %s\n' "$up" "$*"; }
mark() { now; echo "$ticks" >"$dir/beat"; }
is_whole() { [ -d "$dir" ] && [ ! -e "$dir/thawed" ]; }

# client COMMAND...: start the engine's client; it reads what tell writes, and hear reads what it prints
client() {
  mkfifo "$dir/in" "$dir/out" || { why="no named pipe in $dir"; return 1; }
  # in a shell of its own, which ends with 0 whatever becomes of the client
  { sh -c 'echo $$ >"$0/client"; exec "$@"' "$dir" "$@"; exit 0; } <"$dir/in" >"$dir/out" 2>&1 &
  exec 3>"$dir/in" 4<"$dir/out"
  rm -f "$dir/in" "$dir/out"
}
tell() { printf '%s\n' "$1" >&3; }
# hear WORD: lines of the client up to one that is WORD, in $heard; fails when the client has ended
hear() {
  heard=
  while IFS= read -r line <&4; do
    [ "$line" = "$1" ] && return 0
    heard="$heard${heard:+ }$line"
  done
  why=${heard:-the client ended}
  return 1
}

watchdog() {
  trap '' HUP INT TERM PIPE
  nap=0.5
  sleep $nap 2>/dev/null || nap=1 # POSIX knows whole seconds only
  while [ -d "$dir" ]; do
    sleep $nap
    now
    read -r last <"$dir/beat" || continue
    limit=$lease
    read -r ends <"$dir/deadline" || { ends=$((ticks + 1)) limit=$unfrozen; }
    if [ $((ticks - last)) -ge $((limit * 100)) ]; then over="no word for $limit s"
    elif [ "$ticks" -ge "$ends" ]; then over="held for $hard s, the hard limit"
    else continue; fi
    echo "$over" >"$dir/thawed"
    read -r client <"$dir/client" && kill -9 "$client"
    undo
    # the holder may be stopped, or blocked at either end of a session that nobody ends
    is_holder && kill "$$" && sleep 1
    [ ! -d "$dir" ] || ! is_holder || kill -9 "$$"
    rm -rf "$dir"
  done
  exit 0
}
# whether the watchdog still watches: neither ended nor stopped
is_watched() { read -r _ _ state _ <"/proc/$watch/stat" && [ -n "${state##[ZXTt]*}" ]; } 2>/dev/null
# whether $$ is still this text's shell, and no other process by now
is_holder() { read -r text <"/proc/$$/cmdline" && [ -z "${text##*refloat-end*}" ]; }

leave() {
  trap '' HUP INT TERM
  read -r over 2>/dev/null <"$dir/thawed" && why=$over
  exec 3>&- 4<&-
  { read -r client <"$dir/client" && kill -9 "$client"; } 2>/dev/null
  [ -z "$frozen" ] || undo
  rm -rf "$dir" # which the watchdog takes for its end
}
# end CODE: with no child left, though what the watchdog is at may take its time
end() { exec >/dev/null 2>&1; wait; exit "$1"; }
fail() { leave; say "$1 ${why:-unknown}"; end 1; }

for base in /dev/shm /tmp /run /var/tmp; do
  dir=$base/refloat-$token
  mkdir "$dir" 2>/dev/null && break
  dir=
done
[ -n "$dir" ] || { say "FAILED no place for a few bytes outside the volumes: /dev/shm, /tmp, /run and /var/tmp cannot be written"; exit 1; }
trap 'why="ended by a signal"; fail BROKEN' HUP INT TERM
mark
watchdog </dev/null >/dev/null 2>&1 &
watch=$!
arm || fail FAILED
facts
say "ARMED $facts"

while read -r word number; do
  is_whole || fail BROKEN
  is_watched || { why="its watchdog was killed"; fail BROKEN; }
  mark
  case $word in
  freeze)
    frozen=1
    echo $((ticks + hard * 100)) >"$dir/deadline"
    freeze || fail FAILED
    now
    read -r ends <"$dir/deadline"
    [ "$ticks" -lt "$ends" ] || { why="held only after the hard limit"; fail FAILED; }
    since=$up
    is_whole || fail BROKEN
    say "HELD 0 $facts"
    ;;
  beat)
    [ -z "$frozen" ] || beat || fail BROKEN
    facts
    is_whole || fail BROKEN
    say "HELD $number $facts"
    ;;
  between)
    said=
    [ -n "$frozen" ] && between || fail BROKEN
    is_whole || fail BROKEN
    say "BETWEEN $said"
    ;;
  release)
    is_whole || fail BROKEN
    now
    until=$up
    if [ -n "$frozen" ]; then release || fail BROKEN; fi
    is_whole || fail BROKEN
    frozen=
    leave
    say "RELEASED ${since:-$until} $until"
    end 0
    ;;
  esac
done
why="its input ended"
fail BROKEN
