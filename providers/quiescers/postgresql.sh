# PostgreSQL: EXCLUSIVE locks on every table of one database, in one transaction that the server ends by itself when it idles.
arm() {
  PGAPPNAME=refloat-hold client psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$database" || return 1
  tell "select 'refloat', pg_is_in_recovery();"
  # a server process that waits for a lock does not see its client die, unless it is told to look (PostgreSQL 14)
  tell "select set_config('client_connection_check_interval', '500ms', false)
    where current_setting('server_version_num')::int >= 140000;"
  tell '\echo refloat-armed'
  hear refloat-armed || return 1
  case $heard in *'|t'*) standby=1 ;; *) standby= ;; esac
  [ -z "$standby" ] || return 0
  if [ -n "$backup" ]; then
    begin_backup
  elif [ -n "$checkpoint" ]; then
    tell 'checkpoint;'
    tell '\echo refloat-flushed'
    hear refloat-flushed
  fi
}
facts() {
  # a transaction that only asks would end the hold's; asked inside it, it is one more heartbeat
  tell "select 'role=' || case when pg_is_in_recovery() then 'replica' else 'primary timeline=' ||
    left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) end ||
    ' started=' || extract(epoch from pg_postmaster_start_time())::bigint;"
  tell '\echo refloat-facts'
  if hear refloat-facts; then facts=$heard; else facts=; fi
}
freeze() {
  [ -z "$standby" ] || return 0 # a standby acknowledges no write
  tell "begin;
    set local lock_timeout = '${lock_seconds}s';
    set local statement_timeout = '$((lock_seconds + 1))s'; -- for all locks together
    set local idle_in_transaction_session_timeout = '${lease}s';
    do \$\$ declare names text; how text = ''; begin
      for turn in 1..2 loop
        select string_agg(format('%I.%I', n.nspname, c.relname), ', ' order by c.oid) into names
          from pg_class c join pg_namespace n on n.oid = c.relnamespace
          where c.relkind in ('r', 'p') and c.relpersistence <> 't'
            and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg_toast%';
        if names is not null then execute 'lock table ' || names || ' in exclusive mode' || how; end if;
        exit when how <> '' or not (select rolsuper from pg_roles where rolname = current_user);
        -- nor is a table made, which could be written; one made meanwhile is seen now, and not waited for
        lock table pg_catalog.pg_class in exclusive mode;
        how = ' nowait';
      end loop;
      -- acknowledged before it was written: on disk after three times the delay (wal-async-commit)
      if current_setting('synchronous_commit') = 'off' then
        perform pg_sleep(3 * extract(epoch from current_setting('wal_writer_delay')::interval));
      end if;
    end \$\$;"
  tell '\echo refloat-held'
  hear refloat-held
}
beat() {
  tell 'select 1;'
  tell '\echo refloat-beat'
  hear refloat-beat
}
release() {
  [ -n "$standby" ] || tell 'rollback;'
  tell '\echo refloat-released'
  hear refloat-released
}
undo() { :; } # the session is the lock: it ended with the client
