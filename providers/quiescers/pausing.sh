# Redis and Valkey: CLIENT PAUSE … WRITE, which the server itself ends; every beat renews it and looks that nothing slipped in.
login() {
  cli=$(command -v valkey-cli || command -v redis-cli) || {
    why="neither of the clients valkey-cli and redis-cli is in this container"
    return 1
  }
  for name in REDISCLI_AUTH VALKEYCLI_AUTH REDIS_PASSWORD VALKEY_PASSWORD; do
    eval "value=\${$name:-} file=\${${name}_FILE:-}"
    [ -n "$value" ] || [ -z "$file" ] || value=$(cat "$file")
    [ -z "$value" ] || break
  done
  [ -z "$value" ] || export REDISCLI_AUTH="$value" VALKEYCLI_AUTH="$value"
  said=$(called ping 2>&1)
  case $said in *PONG*) return 0 ;; esac
  why="the server did not let us in: $(printf %s "${said:-no answer in 5 s}" | tr '\n' ' ')"
  return 1
}
cli() { "$@" "$cli" ${host:+-h "$host"} ${port:+-p "$port"} ${user:+--user "$user"} --no-auth-warning; }
# called WORD...: one command over a connection of its own; error replies end with 0 as well
called() {
  timeout 5 "$cli" ${host:+-h "$host"} ${port:+-p "$port"} ${user:+--user "$user"} --no-auth-warning "$@" </dev/null
}
# said KEY: its value in $value, from the INFO text in $heard
said() {
  value=${heard#*"$1:"}
  [ "$value" != "$heard" ] || value=
  value=${value%%[!0-9a-z]*}
}
arm() {
  login || return 1
  cli client || return 1
  facts
  [ -n "$facts" ] || return 1
}
facts() {
  tell 'info server'
  tell 'info replication'
  tell 'echo refloat-facts'
  facts=
  hear refloat-facts || return 1
  said role
  role=$value
  said run_id
  if [ -n "$value" ]; then facts="role=$role run=$value"; else why=${heard:-no answer}; fi
}
# Its timer began after we asked, so it cannot have run out before as much time has passed on the node's clock. Should it
# have ended all the same: by hand shows in the count of unpauses (from Redis 7 on), and an executed write (a server counts
# on the wall clock) in the count of changes, which a save that ends in between takes back.
pause() {
  now
  begun=${up%.*}${up#*.}
  tell "client pause ${lease}000 write"
  tell 'info persistence'
  tell 'info commandstats'
  tell 'echo refloat-paused'
  hear refloat-paused || return 1
  case $heard in OK*) ;; *) why=$heard; return 1 ;; esac
  now
  if [ -n "${paused:-}" ] && [ $((${up%.*}${up#*.} - paused)) -ge $((lease * 100)) ]; then
    why="the pause had run out before it was renewed"
    return 1
  fi
  unpaused=${heard#*'cmdstat_client|unpause:calls='}
  [ "$unpaused" != "$heard" ] || unpaused=0
  unpaused=${unpaused%%[!0-9]*}
  if [ -n "${paused:-}" ] && [ "$unpaused" -gt "$unpauses" ]; then
    why="somebody ended the pause"
    return 1
  fi
  paused=$begun unpauses=$unpaused
}
beat() {
  [ -z "${changes:-}" ] && return 0 # a replica: held by being one
  pause || return 1
  said rdb_changes_since_last_save
  if [ "${value:-0}" -gt "$changes" ]; then
    why="a write was executed while it was paused"
    return 1
  fi
  changes=$value
}
freeze() {
  if [ "$role" = slave ] && [ -n "$read_only_replica" ]; then return 0; fi # it acknowledges no write of a client
  now
  late=$((secs + lock_seconds)) saving=
  while pause; do
    is_kept && break
    [ -z "$why" ] || return 1
    now
    [ "$secs" -lt "$late" ] || { why="its $doing took longer than $lock_seconds s"; return 1; }
    sleep 0.1
  done
  [ -z "$why" ] || return 1
  said rdb_changes_since_last_save
  changes=${value:-0}
  # AOF: what was acknowledged may lie in the page cache only; RDB: its renaming too, before Redis 7
  sync -f "$folder" 2>/dev/null || sync || { why="no sync in this container"; return 1; }
}
# Whether all that was acknowledged has been written to the files; else starts what is missing, or tells in $why that it failed
is_kept() {
  said aof_enabled
  if [ "$value" = 1 ]; then
    doing="rewriting of the append-only file"
    said aof_last_write_status
    [ "$value" = ok ] || { why="its append-only file cannot be written"; return 1; }
    said aof_rewrite_in_progress
    [ "$value" = 0 ] || return 1
    said aof_buffer_length
    [ "${value:-0}" = 0 ]
    return
  fi
  doing="BGSAVE"
  said rdb_bgsave_in_progress
  [ "$value" = 0 ] || return 1
  said rdb_changes_since_last_save
  [ "$value" != 0 ] || return 0
  said rdb_last_bgsave_status
  [ -z "$saving" ] || [ "$value" = ok ] || { why="its BGSAVE failed"; return 1; }
  saving=1
  tell 'bgsave'
  tell 'echo refloat-saving'
  hear refloat-saving
  return 1
}
release() {
  beat || return 1
  [ -n "${changes:-}" ] || return 0
  tell 'client unpause'
  tell 'echo refloat-released'
  hear refloat-released && [ "$heard" = OK ]
}
undo() { login && called client unpause; }
