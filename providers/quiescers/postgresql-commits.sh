# PostgreSQL, where its tables are too many to be locked: every commit is made to wait for a standby that there is not. The
# whole server's, and a setting in its folder: it outlives the session, the server and the pod until somebody takes it back.
# What was set before is kept in the name itself, so that whoever undoes it needs no memory.
setting() {
  asked "select coalesce((select setting from pg_file_settings where name = 'synchronous_standby_names'
  and sourcefile like '%postgresql.auto.conf' order by seqno desc limit 1), '(none)')"
}
ask() { PGAPPNAME=refloat-ask PGOPTIONS='-c statement_timeout=5s' psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$database" "$@"; }
asked() { ask -c "$1" </dev/null; }
# take back what a hold has set, whoever it was; what else is set stays
undo() {
  set_now=$(setting) || return 1
  case $set_now in *refloat-hold:*) ;; *) return 0 ;; esac
  before=${set_now#*refloat-hold:}
  before=${before%%[!0-9a-f]*}
  if [ -n "$before" ]; then
    printf '%s\n' "select convert_from(decode('$before', 'hex'), 'UTF8') as former \\gset" \
      "alter system set synchronous_standby_names = :'former';" 'select pg_reload_conf();' |
      ask >/dev/null
  else
    asked 'alter system reset synchronous_standby_names' && asked 'select pg_reload_conf()' >/dev/null
  fi
}
freeze() {
  [ -z "$standby" ] || return 0 # a standby acknowledges no write
  former=$(setting) || { why="its settings cannot be read"; return 1; }
  case $former in *refloat-hold:*) why="commits wait already: another hold was not taken back"; return 1 ;; esac
  [ "$former" = '(none)' ] && former= || former=$(printf %s "$former" | od -An -v -tx1 | tr -d ' \n')
  tell "alter system set synchronous_standby_names = '\"refloat-hold:$former\"';"
  tell 'select pg_reload_conf();'
  tell '\echo refloat-set'
  hear refloat-set || return 1
  is_in_force || return 1
  tell "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'refloat-probe';"
  tell '\echo refloat-probed'
  hear refloat-probed || return 1
  tell 'select pg_sleep(0.05);' # who had passed the gate before it was shut is through by then, or breaks the hold
  tell "select 'refloat-from:' || pg_current_snapshot()::text;"
  tell '\echo refloat-held'
  hear refloat-held || return 1
  from=${heard#*refloat-from:}
}
# A commit of our own waits, so that everybody's does. One that began before the setting came through is not waited for.
is_in_force() {
  now
  late=$((secs + lock_seconds)) probe=
  while [ "$secs" -lt "$late" ]; do
    [ -n "$probe" ] && kill -0 "$probe" 2>/dev/null || {
      { PGAPPNAME=refloat-probe psql -X -q -d "$database" \
        -c "select pg_logical_emit_message(true, 'refloat', 'probe')"; exit 0; } </dev/null >/dev/null 2>&1 &
      probe=$!
    }
    tell "select 'waiting', count(*) from pg_stat_activity
      where application_name = 'refloat-probe' and wait_event = 'SyncRep';"
    tell '\echo refloat-looked'
    hear refloat-looked || return 1
    case $heard in 'waiting|1') return 0 ;; esac
    sleep 0.05 2>/dev/null || sleep 1
    now
  done
  why="commits do not wait though they were told to, after $lock_seconds s"
  return 1
}
# A transaction that was not over when it was held, or began since, and is committed: its commit did not wait
beat() {
  [ -z "$standby" ] || { tell 'select 1;'; tell '\echo refloat-beat'; hear refloat-beat; return; }
  tell "select 'refloat-slipped:' || count(*) from (
    select pg_snapshot_xip('$from'::pg_snapshot) as x union all
    select generate_series(pg_snapshot_xmax('$from'::pg_snapshot)::text::bigint,
      pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)::text::xid8) begun
    where pg_xact_status(x) = 'committed';"
  tell '\echo refloat-beat'
  hear refloat-beat || return 1
  case $heard in *refloat-slipped:0) return 0 ;; esac
  why="a commit did not wait: synchronous_commit is off or local in some session"
  return 1
}
release() { beat && { [ -n "$standby" ] || undo; }; }
