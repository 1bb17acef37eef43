# MySQL and MariaDB: one session that holds, its idle time the lease; before it a function freeze and a function unfreeze.
# login: the client in $sql, and the password from the container's own environment, as the images name it
login() {
  sql=$(command -v mariadb || command -v mysql) || {
    why="neither of the clients mariadb and mysql is in this container"
    return 1
  }
  : "${user:=root}"
  case $user in
  "${MARIADB_USER:-}" | "${MYSQL_USER:-}") names="MARIADB_PASSWORD MYSQL_PASSWORD" ;;
  *) names="MARIADB_ROOT_PASSWORD MYSQL_ROOT_PASSWORD" ;;
  esac
  for name in $names; do
    eval "value=\${$name:-} file=\${${name}_FILE:-}"
    [ -n "$value" ] || [ -z "$file" ] || value=$(cat "$file")
    [ -z "$value" ] || break
  done
  [ -z "$value" ] || export MYSQL_PWD="$value"
}
# as the session's client, which must never connect again by itself: it would have lost the lock
sql() {
  "$@" "$sql" -u "$user" ${host:+-h "$host"} ${port:+-P "$port"} ${socket:+-S "$socket"} \
    --connect-timeout=5 --skip-reconnect -B -N -n
}
asked() { sql timeout 5 <<END
$1
END
}
arm() {
  login || return 1
  sql client || return 1
  tell "set session lock_wait_timeout = $lock_seconds, wait_timeout = $lease, autocommit = 1;"
  tell "select concat('lock=', ifnull(get_lock('refloat-hold', 0), 0));"
  tell "select 'refloat-armed';"
  hear refloat-armed || return 1
  case $heard in *lock=1*) return 0 ;; esac
  why="another hold of refloat is under way in this server"
  return 1
}
facts() {
  tell "select concat('role=', if(@@global.read_only, 'replica', 'primary'), ' server=', @@hostname, ':', @@port,
    ' session=', connection_id());"
  tell "select 'refloat-facts';"
  if hear refloat-facts; then facts=$heard; else facts=; fi
}
beat() {
  tell "select 'refloat-beat';"
  hear refloat-beat
}
release() {
  tell "$unfreeze do release_lock('refloat-hold');"
  tell "select 'refloat-released';"
  hear refloat-released
}
undo() { :; } # the session is the lock: it ended with the client
# what was acknowledged may lie in the page cache only (innodb_flush_log_at_trx_commit, sync_binlog); a cut sees the disk
on_disk() {
  tell "flush local engine logs;"
  tell "select 'refloat-held';"
  hear refloat-held || return 1
  sync -f "$datadir" 2>/dev/null || sync || { why="no sync in this container"; return 1; }
}
