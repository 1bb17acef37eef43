# MongoDB: fsyncLock, a count of the server's that outlives its client; so a second client, logged in before, waits to unlock.
login() {
  command -v mongosh >/dev/null || { why="mongosh, its client, is not in this container"; return 1; }
  mongo_user=${user:-${MONGO_INITDB_ROOT_USERNAME:-${MONGODB_ROOT_USER:-root}}}
  for name in MONGO_INITDB_ROOT_PASSWORD MONGODB_ROOT_PASSWORD; do
    eval "value=\${$name:-} file=\${${name}_FILE:-}"
    [ -n "$value" ] || [ -z "$file" ] || value=$(cat "$file")
    [ -z "$value" ] || break
  done
  export REFLOAT_MONGO_USER="$mongo_user" REFLOAT_MONGO_PASSWORD="$value"
}
uri() { printf 'mongodb://%s:%s/admin?directConnection=true' "${host:-127.0.0.1}" "${port:-27017}"; }
# what every client is told first; the password stays in the environment
AUTH="if (process.env.REFLOAT_MONGO_PASSWORD) db.getSiblingDB('admin').auth(process.env.REFLOAT_MONGO_USER, process.env.REFLOAT_MONGO_PASSWORD);"
UNLOCK="while (db.currentOp().fsyncLock) db.fsyncUnlock();"
once() { timeout "$1" mongosh --quiet --norc "$(uri)" --eval "$AUTH $2" </dev/null 2>&1; }
spare() {
  mkfifo "$dir/spare" || return 1
  # open at both ends: it outlives whoever writes to it, and ends with the folder
  ( mongosh --quiet --norc "$(uri)" <>"$dir/spare" >"$dir/spared" 2>&1 &
    while [ -d "$dir" ]; do sleep 1; done
    kill $!; wait $!; true ) </dev/null >/dev/null 2>&1 3>&- 4<&- &
  printf '%s\n' "$AUTH" "print('\\nrefloat-' + 'spare');" >"$dir/spare"
  turn=0
  until grep -q refloat-spare "$dir/spared" 2>/dev/null; do
    turn=$((turn + 1))
    [ "$turn" -lt 100 ] || { why="no second client for the watchdog"; return 1; }
    sleep 0.1
  done
}
# a client that reads a pipe still prints its prompt, so what is listened for begins a line
mongo() {
  tell "$1 print('\\nrefloat-' + 'said');"
  hear refloat-said
}
arm() {
  login && spare || return 1
  client mongosh --quiet --norc "$(uri)" || return 1
  mongo "$AUTH" || return 1
  mongo "if (db.currentOp().fsyncLock) print('locked');" || return 1
  case $heard in *locked*) why="it is locked already, by another"; return 1 ;; esac
  facts
}
facts() {
  facts=
  mongo "var h = db.hello(); print('primary=' + h.isWritablePrimary + ' term=' + (h.electionId || 'none'));" || return 1
  facts=$heard
}
freeze() {
  mongo "print('ok=' + db.fsyncLock().ok);" || return 1
  case $heard in *ok=1*) return 0 ;; esac
  why="fsyncLock: $heard"
  return 1
}
beat() {
  mongo "print('locked=' + Boolean(db.currentOp().fsyncLock));" || return 1
  case $heard in *locked=true*) return 0 ;; esac
  why="somebody unlocked it meanwhile"
  return 1
}
release() { beat && mongo "$UNLOCK"; }
undo() {
  if [ -p "$dir/spare" ]; then
    printf '%s\n' "$UNLOCK" "print('\\nrefloat-' + 'unlocked');" >"$dir/spare"
    turn=0
    while [ "$turn" -lt 30 ]; do
      grep -q refloat-unlocked "$dir/spared" 2>/dev/null && return 0
      turn=$((turn + 1))
      sleep 0.1
    done
  fi
  login && once 8 "$UNLOCK"
}
